//! The rights that `deploy/` grants are those the product uses: the API server's audit log is the witness.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ferrocast_tests::audit::{self, Right};
use ferrocast_tests::cases;
use ferrocast_tests::ferrocast::binary;
use ferrocast_tests::lab::{CONVERGENCE_TIME_MAX, HUB, Lab, NODES, SPEAKER_ASN, base_configuration, host_route};
use ferrocast_tests::objects::{self, CONFIG_NAMESPACE, SYSTEM_NAMESPACE, Service};
use ferrocast_tests::process::{free_port, run};
use ferrocast_tests::runner::{self, Context};
use ferrocast_tests::wait::{ensure_that, eventually};
use serde_json::{Value, json};

/// How long a standby may take to win a released Lease and allocate.
const HAND_OVER_MAX: Duration = Duration::from_secs(30);

/// The first pool of the lab's configuration.
fn base_pool_name() -> Result<String> {
    let configuration = base_configuration();
    let pool = configuration.iter().find(|object| object["kind"] == "IPAddressPool").context("no pool")?;
    Ok(pool["metadata"]["name"].as_str().context("no name")?.to_owned())
}

fn main() -> ExitCode {
    let cases = cases![every_granted_right_is_used_and_no_other_is_asked_for];
    runner::main::<Bed>("e2e_rights", env!("CARGO_TARGET_TMPDIR"), cases)
}

struct Bed(Lab);

impl Context for Bed {
    async fn start(dir: &Path) -> Result<Self> {
        Lab::without_proxies(dir).await.map(Self)
    }

    fn diagnose(&self) -> String {
        self.0.diagnose()
    }
}

/// The rights that the Roles and ClusterRoles of `deploy/` grant to the accounts of the same names.
fn granted(lab: &Lab) -> Result<BTreeSet<Right>> {
    let mut rights = BTreeSet::new();
    for (kind, namespace) in [("clusterrole", ""), ("role", SYSTEM_NAMESPACE), ("role", CONFIG_NAMESPACE)] {
        let printed = lab.plane.kubectl(&["get", kind, "-n", namespace, "-o", "json"], None)?;
        let list: Value = serde_json::from_str(&printed)?;
        for role in list["items"].as_array().context("no items")? {
            let account = role["metadata"]["name"].as_str().context("no name")?;
            if !account.starts_with("ferrocast-") {
                continue;
            }
            for rule in role["rules"].as_array().context("no rules")? {
                let words = |field: &str| -> Vec<String> {
                    let words = rule[field].as_array().into_iter().flatten();
                    words.filter_map(|word| word.as_str().map(str::to_owned)).collect()
                };
                for group in words("apiGroups") {
                    for resource in words("resources") {
                        for verb in words("verbs") {
                            let right =
                                (account.to_owned(), namespace.to_owned(), group.clone(), resource.clone(), verb);
                            rights.insert(right);
                        }
                    }
                }
            }
        }
    }
    Ok(rights)
}

/// Somebody with the ClusterRole for it asks everybody, and is answered by all.
async fn explain_with_the_right_to(lab: &Lab) -> Result<()> {
    let kubeconfig = lab.who_may_explain().await?;
    eventually("everybody explains a Service", CONVERGENCE_TIME_MAX, async || {
        let mut explain = Command::new(binary()?);
        let told = run(explain.args(["explain", "service", "default/first", "--kubeconfig"]).arg(&kubeconfig))?;
        let whole = NODES.iter().all(|node| told.contains(node)) && !told.contains("Not answered");
        ensure_that(whole, || told)
    })
    .await?;
    // A speaker reads where the controller is only for those who do not reach it.
    lab.explain_without_controller(&["service", "default/first"], &kubeconfig).await.map(drop)
}

/// The product starts before there is any configuration (it looks for some elsewhere), gets it, loses a kind, changes
/// its leader and is asked to stop: everything it has a right for.
async fn every_granted_right_is_used_and_no_other_is_asked_for(bed: &mut Bed) -> Result<()> {
    let lab = &mut bed.0;
    lab.start_ferrocast(2).await?;
    // Both replicas have a webhook; the API server asks the first.
    let mut ports = Vec::new();
    for controller in &mut lab.controllers {
        let port = free_port()?;
        controller.process().terminate().await?;
        let explain = format!("--explain={HUB}:{}", free_port()?);
        controller.set_arguments(&[&format!("--webhook={HUB}:{port}"), "--webhook-host", HUB, &explain]);
        controller.restart()?;
        ports.push(port);
    }
    lab.plane.use_webhook(&format!("https://{HUB}:{}/validate", ports[0]))?;
    for speaker in &mut lab.speakers {
        speaker.process().terminate().await?;
        speaker.set_arguments(&["--service-bgp-status", "--explain=[::]:9132"]);
        speaker.restart()?;
        speaker.wait_until_ready().await?;
    }
    eventually("the product looked for configuration elsewhere", CONVERGENCE_TIME_MAX, async || {
        let looked = audit::requests(&lab.plane)?;
        let found =
            looked.iter().any(|request| request.resource == "bgpadvertisements" && request.namespace.is_empty());
        ensure_that(found, || "not yet".to_owned())
    })
    .await?;
    eventually("the webhook lets configuration pass", CONVERGENCE_TIME_MAX, async || {
        lab.cluster.apply_all(&base_configuration()).await
    })
    .await?;
    // What must be remembered of releases stands in these.
    let pool = base_pool_name()?;
    let policy = json!({"ipAddressPools": [pool], "strategy": "LeastRecentlyUsed"});
    lab.cluster.apply(&objects::config(CONFIG_NAMESPACE, "PoolPolicy", "careful", policy)).await?;
    let reservation = json!({
        "pool": pool, "count": 1, "family": "IPv4", "for": {"services": [{"namespace": "default", "name": "reserved"}]},
    });
    lab.cluster.apply(&objects::config(CONFIG_NAMESPACE, "AddressReservation", "kept", reservation)).await?;
    // The speakers alone see Secrets, and say in an Event that this one is missing.
    let spec = json!({
        "myASN": SPEAKER_ASN, "peerASN": SPEAKER_ASN, "peerAddress": "10.99.0.13", "passwordSecret": {"name": "missing"},
    });
    lab.cluster.apply(&objects::config(CONFIG_NAMESPACE, "BGPPeer", "secretless", spec)).await?;
    lab.wait_for_sessions().await?;
    lab.cluster.wait_for_event(CONFIG_NAMESPACE, "secretless", &["Warning", "passwordSecret", "missing"]).await?;
    let service = Service::named("first");
    lab.apply_service(&service, &NODES).await?;
    let address = lab.cluster.wait_for_addresses("default", "first", 1).await?.remove(0);
    lab.wait_for_hops(&host_route(&address), &NODES).await?;
    lab.apply_service(&Service::named("reserved"), &NODES).await?;
    lab.cluster.wait_for_addresses("default", "reserved", 1).await?;
    lab.apply_service(&Service::named("released"), &NODES).await?;
    lab.cluster.wait_for_addresses("default", "released", 1).await?;
    eventually("its status is written by every node", CONVERGENCE_TIME_MAX, async || {
        let statuses = lab.cluster.list("metallb.io/v1beta1", "ServiceBGPStatus", CONFIG_NAMESPACE).await?;
        ensure_that(statuses.len() >= 3 * NODES.len(), || format!("{} of them", statuses.len()))
    })
    .await?;
    lab.cluster.delete(&Service::named("released").object()).await?;
    lab.cluster.delete(&objects::config(CONFIG_NAMESPACE, "BGPPeer", "secretless", json!({}))).await?;
    eventually("the pool's status counts its addresses", CONVERGENCE_TIME_MAX, async || {
        let pools = lab.cluster.list("metallb.io/v1beta1", "IPAddressPool", CONFIG_NAMESPACE).await?;
        ensure_that(pools.iter().any(|pool| pool.data["status"]["assignedIPv4"] == 2), || "not yet".to_owned())
    })
    .await?;
    for index in 0..2 {
        lab.controllers[index].process().terminate().await?;
        let name = format!("with-another-leader-{index}");
        lab.controllers[index].restart()?;
        lab.apply_service(&Service::named(&name), &NODES).await?;
        eventually("another leader allocates", HAND_OVER_MAX, async || {
            ensure_that(lab.cluster.addresses("default", &name).await?.len() == 1, || "not yet".to_owned())
        })
        .await?;
        lab.controllers[index].wait_until_ready().await?;
    }
    explain_with_the_right_to(lab).await?;
    // Kinds that are gone are asked about by their definitions.
    let policy = objects::config(CONFIG_NAMESPACE, "BGPPeerPolicy", "first", json!({"routes": {"med": 1}}));
    lab.cluster.apply(&policy).await?;
    // How to end depends on Node and DaemonSet.
    lab.speakers[0].process().terminate().await?;
    lab.speakers[0].restart()?;
    lab.speakers[0].wait_until_ready().await?;
    let base = ferrocast_tests::kube::in_repository("deploy/crds").display().to_string();
    for kind in ["ipaddresspools", "bgppeers", "bgpadvertisements", "communities", "l2advertisements", "bfdprofiles"] {
        lab.plane.kubectl(&["delete", "crd", &format!("{kind}.metallb.io")], None)?;
    }
    lab.plane.kubectl(&["delete", "validatingwebhookconfiguration", "ferrocast-webhook"], None)?;
    for kind in ["bgppeerpolicies", "poolpolicies", "addressreservations", "speakerstatuses"] {
        lab.plane.kubectl(&["delete", "crd", &format!("{kind}.ferrocast.io")], None)?;
    }
    let granted = granted(lab)?;
    let compared = eventually("the rights granted are those used", CONVERGENCE_TIME_MAX, async || {
        let requests = audit::requests(&lab.plane)?;
        let refused: Vec<_> = requests.iter().filter(|request| request.code == 403).collect();
        ensure!(refused.is_empty(), "refused: {refused:#?}");
        let used = audit::rights(&requests);
        let idle: Vec<_> = granted.difference(&used).collect();
        ensure_that(idle.is_empty(), || format!("granted and not used: {idle:#?}"))
    })
    .await;
    lab.plane.kubectl(&["apply", "--server-side", "-k", &base], None)?;
    compared
}
