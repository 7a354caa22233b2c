//! Keeps a chain of certificates in a Secret, renews it while leading, and publishes what clients trust.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ferrocast_core::actor::{Actor, ActorError, CancellationToken, chain, sleep_until};
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::ValidatingWebhookConfiguration,
        core::v1::{ConfigMap, Secret},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use super::{
    authority::{Certified, Chain, renew, renewal_s},
    listener::{Serving, server_config},
};
use crate::cluster::{lease::Leadership, watch::Feed};

/// Longest wait before everything is looked at again: timers of months drift, clocks are set, and somebody may overwrite what was
/// published.
const LOOK_PERIOD: Duration = Duration::from_secs(60);
/// Wait after a failed write, or for what others have to install first.
const RETRY: Duration = Duration::from_secs(15);
/// Who writes, as the API server keeps it.
const FIELD_MANAGER: &str = "ferrocast-controller";

const SERVER_CERTIFICATE: &str = "tls.crt";
const SERVER_KEY: &str = "tls.key";
const AUTHORITY_CERTIFICATE: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const FORMER_AUTHORITY: &str = "ca-former.crt";
const VALIDITY: &str = "validity.json";

/// What cannot be read off the certificates without a parser.
#[derive(Debug, Deserialize, Serialize)]
struct Validity {
    authority_expires_s: i64,
    server_expires_s: i64,
    names: Vec<String>,
}

/// What a [`Keeper`] keeps.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret.
    pub secret: String,
    /// Common name of the authority.
    pub common_name: &'static str,
    /// DNS names of the server.
    pub names: Vec<String>,
    /// Who is told.
    pub publish: Publish,
}

/// Who is told to trust the authority.
#[derive(Clone, Debug)]
pub enum Publish {
    /// The API server: by the webhooks of this ValidatingWebhookConfiguration, which somebody else installs (or not).
    Webhook(String),
    /// Clients that read a ConfigMap; and the servers beside this process get the certificate by a Secret of their own, since the
    /// kept one has the authority's key.
    Clients {
        /// Name of the ConfigMap, in the namespace of the Secret. Its key `ca.crt` has the authority.
        config_map: String,
        /// What else it says.
        more: BTreeMap<String, String>,
        /// Name of the Secret with the server's certificate and key, and nothing else.
        server_secret: String,
    },
}

/// The Secret as it was seen last: `None` before the first list; then the chain, if there is one that can be read.
pub type Seen = Option<Option<Chain>>;

/// Sees the Secret.
pub struct ChainFeed {
    /// Where it is seen.
    pub seen: watch::Sender<Seen>,
}

impl Feed for ChainFeed {
    type Object = Secret;
    type Item = Option<Chain>;

    fn digest(&mut self, object: Secret) -> Option<Chain> {
        read(&object)
    }

    fn replace(&mut self, mut items: Vec<Option<Chain>>, _epoch: u64) {
        self.seen.send_replace(Some(items.pop().flatten()));
    }

    fn apply(&mut self, item: Option<Chain>) {
        self.seen.send_replace(Some(item));
    }

    fn remove(&mut self, _item: Option<Chain>) {
        self.seen.send_replace(Some(None));
    }
}

/// Serves what the Secret holds that a [`Keeper`] elsewhere handed out. While there is none, what was served last stays.
pub struct ServedFeed {
    /// What is served.
    pub serving: Serving,
}

impl ServedFeed {
    fn serve(&self, item: Option<Certified>) {
        let Some(certified) = item else { return };
        match server_config(&certified) {
            Ok(config) => self.serving.store(Some(Arc::new(config))),
            Err(error) => tracing::error!(error, "cannot serve the certificate"),
        }
    }
}

impl Feed for ServedFeed {
    type Object = Secret;
    type Item = Option<Certified>;

    fn digest(&mut self, object: Secret) -> Option<Certified> {
        let data = object.data.as_ref()?;
        // Who renews it looks at its end, we do not.
        Some(Certified { certificate: text(data, SERVER_CERTIFICATE)?, key: text(data, SERVER_KEY)?, expires_s: 0 })
    }

    fn replace(&mut self, mut items: Vec<Option<Certified>>, _epoch: u64) {
        self.serve(items.pop().flatten());
    }

    fn apply(&mut self, item: Option<Certified>) {
        self.serve(item);
    }

    fn remove(&mut self, _item: Option<Certified>) {}
}

/// The text of a key of a Secret.
fn text(data: &BTreeMap<String, ByteString>, key: &str) -> Option<String> {
    String::from_utf8(data.get(key)?.0.clone()).ok()
}

fn read(secret: &Secret) -> Option<Chain> {
    let data = secret.data.as_ref()?;
    let validity: Validity = serde_json::from_slice(&data.get(VALIDITY)?.0).ok()?;
    let part = |certificate, key, expires_s| {
        Some(Certified { certificate: text(data, certificate)?, key: text(data, key)?, expires_s })
    };
    Some(Chain {
        authority: part(AUTHORITY_CERTIFICATE, AUTHORITY_KEY, validity.authority_expires_s)?,
        server: part(SERVER_CERTIFICATE, SERVER_KEY, validity.server_expires_s)?,
        former_authority: text(data, FORMER_AUTHORITY).unwrap_or_default(),
    })
}

/// Is everything of ours there? What others have added does not matter.
fn holds<T: PartialEq>(found: Option<&BTreeMap<String, T>>, ours: &BTreeMap<String, T>) -> bool {
    ours.iter().all(|(key, value)| found.and_then(|found| found.get(key)) == Some(value))
}

/// What the Secret holds.
fn data_of(chain: &Chain, names: &[String]) -> BTreeMap<String, ByteString> {
    let validity = Validity {
        authority_expires_s: chain.authority.expires_s,
        server_expires_s: chain.server.expires_s,
        names: names.to_vec(),
    };
    let validity = serde_json::to_vec(&validity).unwrap_or_default();
    [
        (SERVER_CERTIFICATE, chain.server.certificate.as_bytes()),
        (SERVER_KEY, chain.server.key.as_bytes()),
        (AUTHORITY_CERTIFICATE, chain.authority.certificate.as_bytes()),
        (AUTHORITY_KEY, chain.authority.key.as_bytes()),
        (FORMER_AUTHORITY, chain.former_authority.as_bytes()),
        (VALIDITY, &validity),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), ByteString(value.to_vec())))
    .collect()
}

/// Keeps a chain.
pub struct Keeper {
    client: Client,
    kept: Kept,
    seen: watch::Receiver<Seen>,
    leadership: watch::Receiver<Leadership>,
    serving: Serving,
    failing: bool,
}

impl Keeper {
    /// A keeper; `serving` gets the server's certificate whenever it changes, whoever leads.
    #[must_use]
    pub fn new(
        client: Client,
        kept: Kept,
        seen: watch::Receiver<Seen>,
        leadership: watch::Receiver<Leadership>,
        serving: Serving,
    ) -> Self {
        Self { client, kept, seen, leadership, serving, failing: false }
    }

    /// Serves the newest certificate.
    fn serve(&self, chain: Option<&Chain>) {
        let Some(chain) = chain else { return };
        match server_config(&chain.server) {
            Ok(config) => self.serving.store(Some(Arc::new(config))),
            Err(error) => tracing::error!(secret = self.kept.secret, error, "cannot serve the certificate"),
        }
    }

    /// Brings Secret and trust up to date; returns when to look again.
    async fn keep(&self, stored: Option<&Chain>, now: Timestamp) -> Result<Duration, kube::Error> {
        let made = renew(stored, self.kept.common_name, &self.kept.names, now);
        let chain = match made.or_else(|_| renew(None, self.kept.common_name, &self.kept.names, now)) {
            Ok(chain) => chain,
            Err(error) => {
                tracing::error!(%error, "cannot make certificates");
                return Ok(LOOK_PERIOD);
            }
        };
        if stored != Some(&chain) {
            // Two leaders cannot be: but one that lost its Lease may still write. Then the newest wins, and both are told.
            self.write_secret(&self.kept.secret, data_of(&chain, &self.kept.names)).await?;
            tracing::info!(secret = self.kept.secret, expires_s = chain.server.expires_s, "certificate made");
        }
        let found = self.publish(&chain).await?;
        let due = u64::try_from(renewal_s(&chain).saturating_sub(now.as_second())).unwrap_or(0);
        // Somebody may install or overwrite the webhook's configuration at any time; nothing tells us.
        Ok(if found { LOOK_PERIOD.min(Duration::from_secs(due.max(1))) } else { RETRY })
    }

    async fn write_secret(&self, name: &str, data: BTreeMap<String, ByteString>) -> Result<(), kube::Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.kept.namespace);
        let patch = Patch::Merge(json!({ "data": data }));
        match api.patch(name, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            answer => return answer.map(drop),
        }
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let secret = Secret { metadata, data: Some(data), ..Secret::default() };
        api.create(&PostParams::default(), &secret).await.map(drop)
    }

    /// Tells who must know; false if there is nobody to tell yet.
    async fn publish(&self, chain: &Chain) -> Result<bool, kube::Error> {
        match &self.kept.publish {
            Publish::Webhook(name) => self.tell_api_server(name, chain).await,
            Publish::Clients { config_map, more, server_secret } => {
                // Trust first: a certificate of a new authority is served only after clients can know it.
                self.tell_clients(config_map, more, chain).await?;
                self.hand_out(server_secret, chain).await?;
                Ok(true)
            }
        }
    }

    /// Writes the ConfigMap if it says something else.
    async fn tell_clients(
        &self,
        name: &str,
        more: &BTreeMap<String, String>,
        chain: &Chain,
    ) -> Result<(), kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.kept.namespace);
        let mut data = more.clone();
        data.insert(AUTHORITY_CERTIFICATE.to_owned(), chain.trusted());
        let found = api.get_opt(name).await?;
        if holds(found.as_ref().and_then(|map| map.data.as_ref()), &data) {
            return Ok(());
        }
        if found.is_some() {
            let patch = Patch::Merge(json!({ "data": data }));
            api.patch(name, &PatchParams::default(), &patch).await?;
        } else {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
            api.create(&PostParams::default(), &map).await?;
        }
        tracing::info!(config_map = name, "clients are told what to trust and where to ask");
        Ok(())
    }

    /// Writes the servers' Secret if it holds something else.
    async fn hand_out(&self, name: &str, chain: &Chain) -> Result<(), kube::Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.kept.namespace);
        let Certified { certificate, key, .. } = &chain.server;
        let data: BTreeMap<String, ByteString> = [(SERVER_CERTIFICATE, certificate), (SERVER_KEY, key)]
            .into_iter()
            .map(|(name, text)| (name.to_owned(), ByteString(text.as_bytes().to_vec())))
            .collect();
        let found = api.get_opt(name).await?;
        if holds(found.as_ref().and_then(|secret| secret.data.as_ref()), &data) {
            return Ok(());
        }
        self.write_secret(name, data).await?;
        tracing::info!(secret = name, "certificate handed out");
        Ok(())
    }

    /// Tells the API server what to trust; false if nobody has installed the webhook's configuration yet.
    async fn tell_api_server(&self, name: &str, chain: &Chain) -> Result<bool, kube::Error> {
        let api: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let Some(found) = api.get_opt(name).await? else { return Ok(false) };
        let bundle = ByteString(chain.trusted().into_bytes());
        let hooks = found.webhooks.unwrap_or_default();
        let wrong: Vec<_> =
            hooks.iter().enumerate().filter(|(_, h)| h.client_config.ca_bundle.as_ref() != Some(&bundle)).collect();
        if wrong.is_empty() {
            return Ok(true);
        }
        // By name, as the type's merge key has it, so that nothing else of the configuration is touched.
        let patched: Vec<_> =
            wrong.iter().map(|(_, h)| json!({"name": h.name, "clientConfig": {"caBundle": &bundle}})).collect();
        let patch = Patch::Strategic(json!({ "webhooks": patched }));
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        api.patch(name, &params, &patch).await?;
        tracing::info!(configuration = name, "the API server trusts the webhook's certificate now");
        Ok(true)
    }
}

impl Actor for Keeper {
    const NAME: &'static str = "certificate-keeper";

    fn instance(&self) -> String {
        self.kept.secret.clone()
    }

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        self.seen.mark_changed();
        loop {
            let seen = self.seen.borrow_and_update().clone();
            let leading = self.leadership.borrow_and_update().term.is_some();
            let mut again_at = None;
            if let Some(stored) = &seen {
                self.serve(stored.as_ref());
                if leading {
                    let wait = match self.keep(stored.as_ref(), Timestamp::now()).await {
                        Ok(wait) => {
                            self.failing = false;
                            wait
                        }
                        Err(error) => {
                            if !std::mem::replace(&mut self.failing, true) {
                                let error = chain(&error);
                                tracing::warn!(secret = self.kept.secret, error, "certificates not kept, trying again");
                            }
                            RETRY
                        }
                    };
                    again_at = Some(Instant::now() + wait);
                }
            }
            let term = self.leadership.borrow().term;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = self.seen.changed() => changed.map_err(|_| ActorError::Upstream("Secret"))?,
                changed = self.leadership.wait_for(|l| l.term != term) => {
                    drop(changed.map_err(|_| ActorError::Upstream("leadership"))?);
                }
                () = sleep_until(again_at) => {}
            }
        }
    }
}
