//! Reads and writes the record.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ferrocast_core::actor::{Actor, ActorError, CancellationToken, chain, sleep_until};
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use super::parts::{self, DATA, Part, WHOLE};
use crate::cluster::{lease::Leadership, watch::Feed};

/// The label by which the parts are found; its value is the record's base name.
pub const LABEL: &str = "ferrocast.io/in-force";
/// First wait after a failed write; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
/// Longest wait after a failed write.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Longest wait for an answer; below the time by which a leader stops before its lease can have expired.
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// What is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// The epoch of the last list; zero: not seen yet.
    pub epoch: u64,
    /// The newest record that was whole; `None`: there is none.
    pub record: Option<Arc<[u8]>>,
    /// The parts as they are, whole or not.
    pub parts: BTreeMap<usize, Part>,
}

/// Sees the parts.
pub struct PartFeed {
    base: String,
    stored: watch::Sender<Stored>,
}

impl PartFeed {
    /// A feed of the record with this base name, and what it sees.
    #[must_use]
    pub fn new(base: String) -> (Self, watch::Receiver<Stored>) {
        let (stored, reader) = watch::channel(Stored::default());
        (Self { base, stored }, reader)
    }

    fn edit(&self, edit: impl FnOnce(&mut Stored)) {
        self.stored.send_if_modified(|stored| {
            let before = (stored.epoch, stored.parts.clone());
            edit(stored);
            if before == (stored.epoch, stored.parts.clone()) {
                return false;
            }
            match parts::join(&stored.parts) {
                Ok(record) => stored.record = Some(record.into()),
                Err(_) if stored.parts.is_empty() => stored.record = None,
                Err(parts::ReadError::Incomplete) => {} // the rest is under way
                Err(error) => tracing::error!(%error, "the record of the configuration in force is ignored"),
            }
            true
        });
    }
}

/// Which part of the record `base` a ConfigMap holds; `None`: none.
#[must_use]
pub fn part_of(base: &str, object: ConfigMap) -> Option<(usize, Part)> {
    let name = object.metadata.name.as_deref()?;
    let index = match name.strip_prefix(base)? {
        "" => 0,
        rest => rest.strip_prefix('-')?.parse().ok().filter(|index| (1..parts::PARTS_MAX).contains(index))?,
    };
    let whole = object.data?.remove(WHOLE)?;
    let data = object.binary_data?.remove(DATA)?.0;
    Some((index, Part { whole, data }))
}

impl Feed for PartFeed {
    type Object = ConfigMap;
    type Item = Option<(usize, Part)>;

    fn digest(&mut self, object: ConfigMap) -> Self::Item {
        part_of(&self.base, object)
    }

    fn replace(&mut self, items: Vec<Self::Item>, epoch: u64) {
        self.edit(|stored| {
            stored.parts = items.into_iter().flatten().collect();
            stored.epoch = epoch;
        });
    }

    fn apply(&mut self, item: Self::Item) {
        let Some((index, part)) = item else { return };
        self.edit(|stored| drop(stored.parts.insert(index, part)));
    }

    fn remove(&mut self, item: Self::Item) {
        let Some((index, _)) = item else { return };
        self.edit(|stored| drop(stored.parts.remove(&index)));
    }
}

/// What should be stored, and in which term of leadership it was made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// The term.
    pub term: u64,
    /// The record; `None`: nothing yet.
    pub record: Option<Arc<[u8]>>,
}

/// Writes the record while leading.
pub struct RecordWriter {
    client: Client,
    namespace: String,
    base: String,
    wanted: watch::Receiver<Wanted>,
    stored: watch::Receiver<Stored>,
    leadership: watch::Receiver<Leadership>,
}

impl RecordWriter {
    /// A writer of the record `base` in `namespace`.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: String,
        base: String,
        wanted: watch::Receiver<Wanted>,
        stored: watch::Receiver<Stored>,
        leadership: watch::Receiver<Leadership>,
    ) -> Self {
        Self { client, namespace, base, wanted, stored, leadership }
    }

    /// Makes the ConfigMaps as wanted: the first, which says which version counts, last.
    async fn write(&mut self, wanted: &Wanted) -> Result<(), kube::Error> {
        let Some(record) = &wanted.record else { return Ok(()) };
        let stored = self.stored.borrow_and_update().clone();
        if stored.epoch == 0 || stored.record.as_ref() == Some(record) {
            return Ok(());
        }
        let Some(split) = parts::split(record) else {
            tracing::error!(octets = record.len(), "the configuration is too large to be recorded");
            return Ok(());
        };
        for (index, part) in split.into_iter().enumerate().rev() {
            let leadership = *self.leadership.borrow();
            if !leadership.allows(wanted.term, Instant::now()) {
                return Ok(());
            }
            if stored.parts.get(&index) != Some(&part) {
                self.write_part(index, part).await?;
            }
        }
        Ok(()) // parts that are left over from a larger record say which version they are of, and do no harm
    }

    async fn write_part(&self, index: usize, part: Part) -> Result<(), kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = parts::name(&self.base, index);
        let data: BTreeMap<String, String> = [(WHOLE.to_owned(), part.whole)].into();
        let binary: BTreeMap<String, ByteString> = [(DATA.to_owned(), ByteString(part.data))].into();
        let patch = Patch::Merge(json!({
            "metadata": {"labels": {LABEL: self.base}}, "data": data, "binaryData": binary,
        }));
        match api.patch(&name, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            answer => return answer.map(drop),
        }
        let labels = [(LABEL.to_owned(), self.base.clone())].into();
        let metadata = ObjectMeta { name: Some(name), labels: Some(labels), ..ObjectMeta::default() };
        let map = ConfigMap { metadata, data: Some(data), binary_data: Some(binary), ..ConfigMap::default() };
        api.create(&PostParams::default(), &map).await.map(drop)
    }
}

impl Actor for RecordWriter {
    const NAME: &'static str = "record-writer";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let mut failures = 0_u32;
        self.wanted.mark_changed();
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let written = tokio::time::timeout(ANSWER_MAX, self.write(&wanted)).await;
            let error = match written {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(chain(&error)),
                Err(_) => Some(format!("no answer within {ANSWER_MAX:?}")),
            };
            let mut again_at = None;
            match error {
                None => failures = 0,
                Some(error) => {
                    failures = failures.saturating_add(1);
                    if failures == 1 {
                        tracing::warn!(error, "the configuration in force is not recorded, trying again");
                    }
                    let wait = RETRY_MIN.saturating_mul(2_u32.saturating_pow(failures - 1)).min(RETRY_MAX);
                    again_at = Some(Instant::now() + wait);
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = self.wanted.changed() => changed.map_err(|_| ActorError::Upstream("configuration"))?,
                // Somebody may have edited or removed the record.
                changed = self.stored.changed() => changed.map_err(|_| ActorError::Upstream("ConfigMap"))?,
                () = sleep_until(again_at) => {}
            }
        }
    }
}
