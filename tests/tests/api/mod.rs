//! What the suites against a real API server share: a control plane, and a site of its own for each test.
//!
//! A site is a namespace with the configuration and the Services of one test, and a `loadBalancerClass` of the same name.
//! Ferrocast runs with the ServiceAccounts of `deploy/` and with copies of its Roles in that namespace, never as admin.
//! All tests share one Lease, so a test ends its controllers before the next one starts its own.
#![allow(dead_code, reason = "each suite uses a part of it")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ferrocast_tests::cluster::Cluster;
use ferrocast_tests::ferrocast::{Ferrocast, Role, Settings};
use ferrocast_tests::kube::ControlPlane;
use ferrocast_tests::lab::CONVERGENCE_TIME_MAX;
use ferrocast_tests::objects::{self, CONFIG_NAMESPACE, SYSTEM_NAMESPACE, Service};
use ferrocast_tests::process::{free_port, sh, tail};
use ferrocast_tests::runner::Context;
use ferrocast_tests::wait::{eventually, pause, throughout};
use k8s_openapi::api::rbac::v1 as rbac;
use kube::Api;
use serde_json::{Value, json};

/// An address of this host that is not of loopback: the API server's, and what peers are dialled at.
pub(crate) const HOST: &str = "10.99.0.1";
/// How long nothing may happen before a test believes that nothing more will, ms: many times what a write takes.
const QUIET_MS: u64 = 1_000;
/// Longer than a condition waits for what follows from a change, ms.
const SETTLED_MS: u64 = 2_000;
/// The annotation that Ferrocast writes.
pub(crate) const ANNOTATION: &str = "metallb.io/ip-allocated-from-pool";

/// The control plane that the tests of a suite share.
pub(crate) struct World {
    /// etcd and API server.
    pub(crate) plane: ControlPlane,
    /// The administrator's view.
    pub(crate) cluster: Cluster,
    /// Where logs go.
    pub(crate) dir: PathBuf,
}

impl Context for World {
    async fn start(dir: &Path) -> Result<Self> {
        sh(&format!("ip addr add {HOST}/32 dev lo"))?;
        let plane = ControlPlane::start(dir, HOST).await?;
        plane.install_ferrocast()?;
        let cluster = Cluster::new(plane.admin());
        Ok(Self { plane, cluster, dir: dir.to_owned() })
    }

    fn diagnose(&self) -> String {
        let mut logs: Vec<PathBuf> = std::fs::read_dir(&self.dir)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        let changed = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).ok();
        logs.sort_by_key(changed);
        logs.iter().rev().take(2).map(|path| tail("one of the latest", path)).collect()
    }
}

impl World {
    /// A site called `name`: its namespace exists and Ferrocast may read configuration in it.
    pub(crate) async fn site(&self, name: &str) -> Result<Site> {
        self.cluster.ensure_namespace(name).await?;
        let roles: Api<rbac::Role> = Api::namespaced(self.cluster.client(), CONFIG_NAMESPACE);
        for account in ["ferrocast-controller", "ferrocast-speaker"] {
            let shipped = roles.get(account).await?;
            let group = "rbac.authorization.k8s.io";
            let metadata = json!({"namespace": name, "name": account});
            let role = json!({
                "apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": metadata, "rules": shipped.rules,
            });
            let binding = json!({
                "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": metadata,
                "roleRef": {"apiGroup": group, "kind": "Role", "name": account},
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": SYSTEM_NAMESPACE}],
            });
            self.cluster.apply_all(&[role, binding]).await?;
        }
        let cluster = self.cluster.clone();
        Ok(Site { name: name.to_owned(), class: format!("ferrocast.io/{name}"), cluster })
    }

    /// Starts a controller for a site and waits until it is ready.
    pub(crate) async fn controller(&self, site: &Site, replica: &str) -> Result<Ferrocast> {
        self.controller_with(site, replica, &[]).await
    }

    /// Starts a controller with more arguments for a site and waits until it is ready.
    pub(crate) async fn controller_with(&self, site: &Site, replica: &str, more: &[&str]) -> Result<Ferrocast> {
        let role = Role::Controller { name: format!("{}-{replica}", site.name), port: free_port()? };
        let more = more.iter().map(|argument| (*argument).to_owned()).collect();
        let settings = Settings { more, ..site.settings() };
        let mut controller = Ferrocast::start(&self.plane, &self.dir, role, settings).await?;
        controller.wait_until_ready().await?;
        Ok(controller)
    }

    /// Registers a Node of the site and starts its speaker; waits until that is ready.
    pub(crate) async fn speaker(&self, site: &Site, number: u32) -> Result<Ferrocast> {
        let node = format!("{}-n{number}", site.name);
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}});
        self.cluster.apply(&object).await?;
        let addresses = json!([{"type": "InternalIP", "address": HOST}]);
        self.cluster.merge_status(&object, &json!({ "addresses": addresses })).await?;
        let role = Role::LooseSpeaker { node, port: free_port()? };
        let mut speaker = Ferrocast::start(&self.plane, &self.dir, role, site.settings()).await?;
        speaker.wait_until_ready().await?;
        Ok(speaker)
    }

    /// How many requests of `verb` the API server has answered about `resource`, such as `services/status`.
    fn requests(metrics: &str, verb: &str, resource: &str) -> u64 {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let wanted =
            [format!("resource=\"{resource}\""), format!("subresource=\"{subresource}\""), format!("verb=\"{verb}\"")];
        let lines = metrics.lines().filter(|line| line.starts_with("apiserver_request_total{"));
        let lines = lines.filter(|line| wanted.iter().all(|label| line.contains(label.as_str())));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// What has been written so far, by anybody.
    pub(crate) fn writes(&self) -> Result<Writes> {
        let metrics = self.plane.kubectl(&["get", "--raw", "/metrics"], None)?;
        ensure!(metrics.contains("apiserver_request_total"), "the API server counts no requests");
        let requests = |verb: &str, resource: &str| Self::requests(&metrics, verb, resource);
        let other = ["services", "services/status", "ipaddresspools", "bgppeers", "bgpadvertisements", "namespaces"];
        let verbs = ["POST", "PUT", "PATCH", "DELETE"];
        let all: u64 = other.iter().flat_map(|of| verbs.map(|verb| requests(verb, of))).sum();
        let patches = requests("PATCH", "services/status");
        Ok(Writes { patches, events: requests("POST", "events"), other: all - patches })
    }

    /// Waits until nothing has been written for a while: conditions follow what they tell of after a second.
    pub(crate) async fn settled(&self) -> Result<Writes> {
        let mut before = self.writes()?;
        eventually("nothing is written any more", CONVERGENCE_TIME_MAX, async || {
            pause(Duration::from_millis(SETTLED_MS)).await;
            let now = self.writes()?;
            let quiet = now == before;
            before = now;
            ensure!(quiet, "still writing");
            Ok(())
        })
        .await?;
        Ok(before)
    }

    /// Waits until exactly these writes were made since `before`, and sees that no more follow.
    pub(crate) async fn wait_for_writes(&self, before: Writes, patches: u64, events: u64) -> Result<()> {
        self.wait_for_other_writes(before, patches, events, 0).await
    }

    /// As [`Self::wait_for_writes`], with so many that are neither.
    pub(crate) async fn wait_for_other_writes(
        &self,
        before: Writes,
        patches: u64,
        events: u64,
        other: u64,
    ) -> Result<()> {
        let made = async || -> Result<()> {
            let now = self.writes()?;
            let found = (now.patches - before.patches, now.events - before.events, now.other - before.other);
            ensure!(found == (patches, events, other), "patches, Events and other writes were {found:?}");
            Ok(())
        };
        let what = format!("{patches} status patches and {events} Events are written");
        eventually(&what, CONVERGENCE_TIME_MAX, made).await?;
        throughout("nothing more is written", Duration::from_millis(QUIET_MS), made).await
    }
}

/// Requests counted by the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Writes {
    /// Of `services/status`.
    patches: u64,
    /// Created Events, those refused because they are there already included.
    events: u64,
    /// Anything else to Services, Namespaces and configuration, but for server-side apply, which only tests use.
    other: u64,
}

/// Where one test lives.
pub(crate) struct Site {
    /// Its namespace.
    pub(crate) name: String,
    /// Its class.
    pub(crate) class: String,
    cluster: Cluster,
}

impl Site {
    /// How Ferrocast is started for it.
    pub(crate) fn settings(&self) -> Settings {
        Settings { namespace: self.name.clone(), class: Some(self.class.clone()), ..Settings::default() }
    }

    /// An IPv4 Service of the site.
    pub(crate) fn service<'a>(&'a self, name: &'a str) -> Service<'a> {
        Service { namespace: &self.name, class: Some(&self.class), ..Service::named(name) }
    }

    /// A pool of the site.
    pub(crate) fn pool(&self, name: &str, addresses: &[&str]) -> Value {
        objects::pool(&self.name, name, addresses)
    }

    /// Applies a pool.
    pub(crate) async fn give_pool(&self, name: &str, addresses: &[&str]) -> Result<()> {
        self.cluster.apply(&self.pool(name, addresses)).await
    }

    /// Applies a Service and waits for its addresses.
    pub(crate) async fn allocate(&self, service: &Service<'_>, count: usize) -> Result<Vec<String>> {
        self.cluster.apply(&service.object()).await?;
        self.addresses(service.name, count).await
    }

    /// The condition of a Service of this type: status and reason.
    pub(crate) async fn condition(&self, name: &str, kind: &str) -> Result<Option<(String, String)>> {
        let service = self.cluster.service(&self.name, name).await?;
        let conditions = service.status.and_then(|status| status.conditions).unwrap_or_default();
        Ok(conditions.into_iter().find(|condition| condition.type_ == kind).map(|c| (c.status, c.reason)))
    }

    /// Waits until the condition AddressHeld of a Service is true, or (`held` is false) until it has none.
    pub(crate) async fn wait_for_held(&self, name: &str, held: bool) -> Result<()> {
        eventually(&format!("{name} is held: {held}"), CONVERGENCE_TIME_MAX, async || {
            let found = self.condition(name, "ferrocast.io/AddressHeld").await?;
            let status = found.as_ref().map(|(status, _)| status.as_str());
            ensure!(status == held.then_some("True"), "{found:?}");
            Ok(())
        })
        .await
    }

    /// Waits until a Service of the site has `count` addresses.
    pub(crate) async fn addresses(&self, name: &str, count: usize) -> Result<Vec<String>> {
        self.cluster.wait_for_addresses(&self.name, name, count).await
    }

    /// Waits until a Service has exactly these addresses.
    pub(crate) async fn wait_for(&self, name: &str, addresses: &[&str]) -> Result<()> {
        eventually(&format!("{name} has {addresses:?}"), CONVERGENCE_TIME_MAX, async || {
            let found = self.cluster.addresses(&self.name, name).await?;
            let events = self.cluster.events_about(&self.name, name).await?;
            ensure!(found == addresses, "it has {found:?}; Events: {events:#?}");
            Ok(())
        })
        .await
    }

    /// Waits until a Service's `status.loadBalancer.ingress` is exactly this.
    pub(crate) async fn wait_for_ingress(&self, name: &str, ingress: &Value) -> Result<()> {
        eventually(&format!("the ingress of {name} is {ingress}"), CONVERGENCE_TIME_MAX, async || {
            let service = serde_json::to_value(self.cluster.service(&self.name, name).await?)?;
            let found = service.pointer("/status/loadBalancer/ingress");
            ensure!(found == Some(ingress), "it is {found:?}");
            Ok(())
        })
        .await
    }

    /// The pool that a Service's annotation names.
    pub(crate) async fn annotation(&self, name: &str) -> Result<Option<String>> {
        let service = self.cluster.service(&self.name, name).await?;
        Ok(service.metadata.annotations.and_then(|mut annotations| annotations.remove(ANNOTATION)))
    }

    /// Waits until a Service's annotation names this pool (none: is absent).
    pub(crate) async fn wait_for_annotation(&self, name: &str, pool: Option<&str>) -> Result<()> {
        eventually(&format!("the annotation of {name} is {pool:?}"), CONVERGENCE_TIME_MAX, async || {
            let found = self.annotation(name).await?;
            ensure!(found.as_deref() == pool, "it is {found:?}");
            Ok(())
        })
        .await
    }

    /// Waits for an Event about an object of the site.
    pub(crate) async fn wait_for_event(&self, name: &str, words: &[&str]) -> Result<String> {
        self.cluster.wait_for_event(&self.name, name, words).await
    }

    /// The Events about an object of the site that contain all of `words`.
    pub(crate) async fn events(&self, name: &str, words: &[&str]) -> Result<Vec<String>> {
        let mut events = self.cluster.events_about(&self.name, name).await?;
        events.retain(|event| words.iter().all(|word| event.contains(word)));
        Ok(events)
    }

    /// Version of a Service, which every write changes.
    pub(crate) async fn version(&self, name: &str) -> Result<String> {
        let service = self.cluster.service(&self.name, name).await?;
        service.metadata.resource_version.context("no resourceVersion")
    }
}

/// A Service with these ports instead of its own.
pub(crate) fn with_ports(service: &Service<'_>, ports: &[u16]) -> Value {
    let mut object = service.object();
    object["spec"]["ports"] = ports.iter().map(|port| json!({"name": format!("p{port}"), "port": port})).collect();
    object
}

/// Waits until a role's log has a line with all of `words`.
pub(crate) async fn wait_for_log(role: &Ferrocast, words: &[&str]) -> Result<String> {
    eventually(&format!("a line of the log says {words:?}"), CONVERGENCE_TIME_MAX, async || {
        let log = role.log()?;
        let line = log.lines().find(|line| words.iter().all(|word| line.contains(word)));
        line.map(str::to_owned).with_context(|| role.tail())
    })
    .await
}

/// Ends controllers and speakers in order, so that the Lease is free.
pub(crate) async fn end<const N: usize>(roles: [Ferrocast; N]) -> Result<()> {
    for mut role in roles {
        role.process().terminate().await?;
    }
    Ok(())
}
