//! `ferrocast explain` on a live cluster: what it says, who is told, and what it leaves out when somebody is away.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use ferrocast_tests::cases;
use ferrocast_tests::ferrocast::{Ferrocast, Role, Settings, binary};
use ferrocast_tests::lab::{CONVERGENCE_TIME_MAX, HUB, Lab, NODES, base_configuration, host_route};
use ferrocast_tests::objects::{self, CONFIG_NAMESPACE, SYSTEM_NAMESPACE, Service};
use ferrocast_tests::process::{free_port, run};
use ferrocast_tests::runner::{self, Context};
use ferrocast_tests::wait::{ensure_that, eventually};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

/// Where the speakers explain, as in `deploy/`.
const SPEAKER_PORT: u16 = 9132;
/// The name in the servers' certificates.
const SERVER_NAME: &str = "ferrocast-explain.ferrocast-system.svc";
/// The user who may ask.
const OPERATOR: &str = "operator";

fn main() -> ExitCode {
    let cases = cases![
        a_service_is_explained_from_pool_to_session,
        a_service_that_waits_is_told_every_pool_and_why_not,
        addresses_nodes_and_peers_are_explained,
        only_a_token_of_the_reader_opens_the_port,
        who_may_not_make_that_token_is_told_what_is_lacking,
        the_speakers_have_no_key_of_the_authority,
        a_session_that_is_lost_shows,
        a_speaker_that_is_gone_is_named_and_the_rest_is_told,
        a_speaker_passes_the_question_on_to_a_controller_out_of_reach,
        another_leader_is_asked_when_the_first_ends,
        a_new_authority_is_trusted_and_served_without_a_restart,
    ];
    runner::main::<Bed>("e2e_explain", env!("CARGO_TARGET_TMPDIR"), cases)
}

struct Bed {
    lab: Lab,
    dir: PathBuf,
    /// Of the user who may ask.
    kubeconfig: PathBuf,
    /// The standing Service's address.
    address: String,
}

impl Context for Bed {
    async fn start(dir: &Path) -> Result<Self> {
        let mut lab = Lab::without_proxies(dir).await?;
        lab.cluster.apply_all(&base_configuration()).await?;
        let explaining = |at: String| Settings { more: vec![format!("--explain={at}")], ..Settings::default() };
        for replica in 0..2 {
            let role = Role::Controller { name: format!("controller-{replica}"), port: free_port()? };
            let settings = explaining(format!("{HUB}:{}", free_port()?));
            lab.controllers.push(Ferrocast::start(&lab.plane, dir, role, settings).await?);
        }
        for node in NODES {
            let role = Role::Speaker { node: node.to_owned() };
            let settings = explaining(format!("[::]:{SPEAKER_PORT}"));
            lab.speakers.push(Ferrocast::start(&lab.plane, dir, role, settings).await?);
        }
        for role in lab.controllers.iter_mut().chain(&mut lab.speakers) {
            role.wait_until_ready().await?;
        }
        lab.wait_for_sessions().await?;
        lab.apply_service(&Service::named("standing"), &NODES).await?;
        let address = lab.cluster.wait_for_addresses("default", "standing", 1).await?.remove(0);
        lab.wait_for_hops(&host_route(&address), &NODES).await?;
        for account in [OPERATOR, "stranger"] {
            lab.cluster.apply(&account_named(account)).await?;
        }
        lab.cluster.apply(&binding(OPERATOR)).await?;
        let kubeconfig = lab.plane.token_kubeconfig("default", OPERATOR).await?;
        let bed = Self { lab, dir: dir.to_owned(), kubeconfig, address };
        bed.wait_for_all("everybody answers").await?;
        Ok(bed)
    }

    fn diagnose(&self) -> String {
        self.lab.diagnose()
    }
}

fn account_named(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "default", "name": name}})
}

/// The right to ask.
fn binding(account: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": format!("explain-{account}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "ferrocast-explain"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": account}],
    })
}

/// Elements of an array, none if it is none.
fn all(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn with<'a>(values: &'a Value, field: &str, text: &str) -> Result<&'a Value> {
    all(values).find(|value| value[field] == text).with_context(|| format!("no {field} {text} in {values}"))
}

impl Bed {
    fn explain(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(binary()?);
        run(command.arg("explain").args(arguments).arg("--kubeconfig").arg(&self.kubeconfig))
    }

    fn explained(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.explain(&[kind, name, "-o", "json"])?)?)
    }

    /// Waits until an explanation is as `holds` wants it.
    async fn wait_for(&self, what: &str, kind: &str, name: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        eventually(&format!("explain {kind} {name}: {what}"), CONVERGENCE_TIME_MAX, async || {
            let told = self.explained(kind, name)?;
            ensure_that(holds(&told), || format!("{told:#}"))?;
            Ok(told)
        })
        .await
    }

    /// Waits until the controller and every speaker have answered about the standing Service.
    async fn wait_for_all(&self, what: &str) -> Result<()> {
        let whole = |told: &Value| {
            let nodes = all(&told["services"][0]["nodes"]).count();
            nodes == NODES.len() && told["unanswered"].is_null() && told["facts"][0]["code"] == "allocated"
        };
        self.wait_for(what, "service", "default/standing", whole).await.map(drop)
    }

    async fn token(&self, namespace: &str, account: &str, audience: Option<&str>) -> Result<String> {
        let api: Api<ServiceAccount> = Api::namespaced(self.lab.cluster.client(), namespace);
        let audiences = audience.map(|audience| vec![audience.to_owned()]);
        let spec = TokenRequestSpec { audiences, expiration_seconds: Some(600), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let granted = api.create_token_request(account, &PostParams::default(), &request).await?;
        granted.status.and_then(|status| status.token).context("no token")
    }

    async fn authority(&self) -> Result<String> {
        let maps: Api<ConfigMap> = Api::namespaced(self.lab.cluster.client(), SYSTEM_NAMESPACE);
        let map = maps.get("ferrocast-explain-ca").await?;
        map.data.and_then(|mut data| data.remove("ca.crt")).context("no ca.crt")
    }

    /// Status and body of a plain request to the first node's speaker, whose certificate is verified.
    async fn post(&self, token: Option<&str>, body: &str) -> Result<(String, String)> {
        let authority = self.dir.join("explain-ca.crt");
        std::fs::write(&authority, self.authority().await?)?;
        let url = format!("https://{SERVER_NAME}:{SPEAKER_PORT}/v1/explain");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "8", "--resolve", &format!("{SERVER_NAME}:{SPEAKER_PORT}:10.99.0.101")]);
        curl.arg("--cacert").arg(&authority).args(["-H", "Content-Type: application/json", "-d", body]);
        if let Some(token) = token {
            curl.args(["-H", &format!("Authorization: Bearer {token}")]);
        }
        let printed = run(curl.args(["-w", "\n%{http_code}", &url]))?;
        let (body, status) = printed.rsplit_once('\n').context("no status")?;
        Ok((status.to_owned(), body.to_owned()))
    }
}

async fn a_service_is_explained_from_pool_to_session(bed: &mut Bed) -> Result<()> {
    let told = bed.explained("service", "default/standing")?;
    ensure!(told["facts"][0]["code"] == "allocated", "{told:#}");
    let service = &told["services"][0];
    ensure!(service["pool"] == "lab" && service["addresses"] == json!([bed.address]), "{service:#}");
    ensure!(
        service["pools"][0]["pool"] == "lab" && service["pools"][0]["reason"]["code"] == "allocated",
        "{service:#}"
    );
    let nodes: Vec<&str> = all(&service["nodes"]).filter_map(|node| node["node"].as_str()).collect();
    ensure!(nodes == NODES, "{nodes:?}");
    for node in all(&service["nodes"]) {
        ensure!(node["announce"] == true && node["reason"]["code"] == "announced", "{node:#}");
        ensure!(node["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{node:#}");
        for peer in ["bird4", "frr"] {
            let peer = with(&node["peers"], "peer", peer)?;
            ensure!(peer["desired"] == true && peer["sent"] == true && peer["session"] == "Established", "{peer:#}");
            let host = node["node"].as_str().context("a name")?.replace('n', "10.99.0.10");
            let words = peer["reason"]["message"].as_str().context("no words")?;
            ensure!(words == format!("{}/32, next hop {host}", bed.address), "{words}");
        }
        let other = with(&node["peers"], "peer", "bird6")?;
        ensure!(other["reason"]["code"] == "familyNotCarried" && other["sent"] == false, "{other:#}");
    }
    let text = bed.explain(&["service", "default/standing"])?;
    ensure!(text.contains("bird4 [Established]: sent: ") && text.contains("has been sent it"), "{text}");
    Ok(())
}

async fn a_service_that_waits_is_told_every_pool_and_why_not(bed: &mut Bed) -> Result<()> {
    let second = objects::pool(CONFIG_NAMESPACE, "small", &["10.60.0.1/32"]);
    bed.lab.cluster.apply(&second).await?;
    let wishful = Service::named("wishful").annotated("metallb.io/loadBalancerIPs", "10.60.0.2");
    bed.lab.apply_service(&wishful, &NODES).await?;
    let refused = |told: &Value| told["services"][0]["pools"].as_array().is_some_and(|pools| pools.len() == 2);
    let told = bed.wait_for("two pools", "service", "default/wishful", refused).await?;
    let service = &told["services"][0];
    ensure!(service["addresses"] == json!([]) && service["pool"].is_null(), "{service:#}");
    ensure!(service["reason"]["code"] == "addressNotInPools", "{service:#}");
    for pool in all(&service["pools"]) {
        ensure!(pool["reason"]["code"] == "requestPoolMismatch", "{pool:#}");
    }
    for node in all(&service["nodes"]) {
        ensure!(node["announce"] == false && node["reason"]["code"] == "noIPAllocated", "{node:#}");
    }
    bed.lab.cluster.delete(&wishful.object()).await?;
    bed.lab.cluster.delete(&second).await?;
    let told = bed.explained("service", "default/never-was")?;
    ensure!(told["facts"][0]["code"] == "notFound" && told["services"] == json!([]), "{told:#}");
    Ok(())
}

async fn addresses_nodes_and_peers_are_explained(bed: &mut Bed) -> Result<()> {
    let told = bed.explained("address", &bed.address)?;
    let codes: Vec<&str> = all(&told["facts"]).filter_map(|fact| fact["code"].as_str()).collect();
    ensure!(codes == ["inPool", "inUse"] && told["services"][0]["name"] == "standing", "{told:#}");
    let told = bed.explained("address", "203.0.113.1")?;
    ensure!(told["facts"][0]["code"] == "addressNotInPools" && told["facts"][1]["code"] == "free", "{told:#}");

    let told = bed.explained("node", "n2")?;
    ensure!(told["facts"][0]["code"] == "announcing" && told["services"] == json!([]), "{told:#}");
    let sessions: Vec<&Value> = all(&told["sessions"]).collect();
    ensure!(sessions.len() == 3 && sessions.iter().all(|session| session["node"] == "n2"), "{told:#}");
    let bird = with(&told["sessions"], "peer", "bird4")?;
    ensure!(bird["session"] == "Established" && bird["routes"] == 1 && bird["sent"] == 1, "{bird:#}");
    let told = bed.explained("node", "n9")?;
    ensure!(told["facts"][0]["code"] == "notFound", "{told:#}");

    let told = bed.explained("peer", "frr")?;
    ensure!(told["facts"][0]["code"] == "wanted" && all(&told["sessions"]).count() == NODES.len(), "{told:#}");
    let told = bed.explained("peer", "nobody")?;
    ensure!(told["facts"][0]["code"] == "notFound", "{told:#}");
    Ok(())
}

async fn only_a_token_of_the_reader_opens_the_port(bed: &mut Bed) -> Result<()> {
    let question = r#"{"kind":"service","name":"default/standing"}"#;
    let reader = "ferrocast-reader";
    let good = bed.token(SYSTEM_NAMESPACE, reader, Some("ferrocast")).await?;
    let (status, body) = bed.post(Some(&good), question).await?;
    ensure!(status == "200" && body.contains("announced"), "{status} {body}");
    let own = bed.token("default", OPERATOR, None).await?;
    let elsewhere = bed.token(SYSTEM_NAMESPACE, reader, Some("vault")).await?;
    let for_api = bed.token(SYSTEM_NAMESPACE, reader, None).await?;
    let other = bed.token("default", OPERATOR, Some("ferrocast")).await?;
    // Not the last letter: not all of its bits count.
    let (rest, end) = good.split_at(good.len() - 20);
    let forged = format!("{rest}{}{}", if end.starts_with('A') { 'B' } else { 'A' }, &end[1..]);
    for (what, token) in [
        ("no token", None),
        ("the user's own token", Some(&own)),
        ("for another audience", Some(&elsewhere)),
        ("for the API server", Some(&for_api)),
        ("of another account", Some(&other)),
        ("with a wrong signature", Some(&forged)),
        ("no token at all", Some(&"x".to_owned())),
    ] {
        let (status, body) = bed.post(token.map(String::as_str), question).await?;
        ensure!(status == "401" && !body.contains("standing"), "{what}: {status} {body}");
    }
    // Who is let in is not trusted to ask sensibly.
    for body in ["", "{}", r#"{"kind":"service","name":"x"}"#, r#"{"kind":"address","name":"x"}"#] {
        let (status, body) = bed.post(Some(&good), body).await?;
        ensure!(status.starts_with('4'), "{status} {body}");
    }
    let (status, _) = bed.post(Some(&good), &" ".repeat(10_000)).await?;
    ensure!(status == "413", "{status}");
    // The token is good for nothing else: the account has the rights of any account that nobody gave any.
    let may = |account: &str| {
        bed.lab.plane.kubectl(&["auth", "can-i", "--list", "--as", &format!("system:serviceaccount:{account}")], None)
    };
    ensure!(may(&format!("{SYSTEM_NAMESPACE}:{reader}"))? == may("default:stranger")?, "the reader may something");
    Ok(())
}

async fn who_may_not_make_that_token_is_told_what_is_lacking(bed: &mut Bed) -> Result<()> {
    let kubeconfig = bed.lab.plane.token_kubeconfig("default", "stranger").await?;
    let mut command = Command::new(binary()?);
    match run(command.args(["explain", "service", "default/standing", "--kubeconfig"]).arg(kubeconfig)) {
        Ok(printed) => bail!("a stranger is told: {printed}"),
        Err(error) => ensure!(format!("{error:#}").contains("ClusterRole ferrocast-explain"), "{error:#}"),
    }
    Ok(())
}

async fn the_speakers_have_no_key_of_the_authority(bed: &mut Bed) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(bed.lab.cluster.client(), SYSTEM_NAMESPACE);
    let handed_out = secrets.get("ferrocast-explain-cert").await?.data.unwrap_or_default();
    let keys: Vec<&String> = handed_out.keys().collect();
    ensure!(keys == ["tls.crt", "tls.key"], "{keys:?}");
    let speaker = format!("system:serviceaccount:{SYSTEM_NAMESPACE}:ferrocast-speaker");
    for (name, wanted) in [("ferrocast-explain-cert", true), ("ferrocast-explain-authority", false)] {
        let may = ["auth", "can-i", "watch", &format!("secret/{name}"), "-n", SYSTEM_NAMESPACE, "--as", &speaker];
        let answer = bed.lab.plane.kubectl(&may, None); // "no" is an exit code too
        ensure!(answer.is_ok() == wanted, "{name}: {answer:?}");
    }
    Ok(())
}

async fn a_session_that_is_lost_shows(bed: &mut Bed) -> Result<()> {
    bed.lab.bird.kill()?;
    let lost = |told: &Value| {
        let nodes = &told["services"][0]["nodes"];
        let peers = all(nodes).flat_map(|node| all(&node["peers"]));
        let mut bird = peers.filter(|peer| peer["peer"] == "bird4");
        bird.all(|peer| peer["desired"] == true && peer["sent"] == false && peer["reason"]["code"] == "notEstablished")
    };
    let told = bed.wait_for("the sessions with bird are lost", "service", "default/standing", lost).await?;
    let node = with(&told["services"][0]["nodes"], "node", "n1")?;
    ensure!(with(&node["peers"], "peer", "bird4")?["session"] != "Established", "{node:#}");
    let frr = with(&node["peers"], "peer", "frr")?;
    ensure!(frr["sent"] == true && frr["session"] == "Established", "{frr:#}");
    let told = bed.explained("peer", "bird4")?;
    for session in all(&told["sessions"]) {
        ensure!(session["desired"] == true && session["routes"] == 1 && session["sent"] == 0, "{session:#}");
    }
    bed.lab.bird.start().await?;
    bed.lab.wait_for_sessions().await
}

async fn a_speaker_that_is_gone_is_named_and_the_rest_is_told(bed: &mut Bed) -> Result<()> {
    bed.lab.speakers[2].process().kill()?;
    let told = bed.explained("service", "default/standing")?;
    let nodes: Vec<&str> = all(&told["services"][0]["nodes"]).filter_map(|node| node["node"].as_str()).collect();
    ensure!(nodes == NODES[..2], "{told:#}");
    let missing: Vec<&Value> = all(&told["unanswered"]).collect();
    ensure!(missing.len() == 1 && missing[0]["code"] == "notReached", "{missing:?}");
    ensure!(missing[0]["message"].as_str().is_some_and(|m| m.contains("node n3 at 10.99.0.103:9132")), "{missing:?}");
    let text = bed.explain(&["service", "default/standing"])?;
    ensure!(text.contains("Not answered") && text.contains("node n3"), "{text}");
    bed.lab.speakers[2].restart()?;
    bed.lab.speakers[2].wait_until_ready().await?;
    bed.lab.wait_for_sessions().await?;
    bed.wait_for_all("it answers").await
}

async fn a_speaker_passes_the_question_on_to_a_controller_out_of_reach(bed: &mut Bed) -> Result<()> {
    let printed =
        bed.lab.explain_without_controller(&["service", "default/standing", "-o", "json"], &bed.kubeconfig).await?;
    let told: Value = serde_json::from_str(&printed)?;
    ensure!(told["facts"][0]["code"] == "allocated" && told["unanswered"].is_null(), "{told:#}");
    ensure!(all(&told["services"][0]["nodes"]).count() == NODES.len(), "{told:#}");
    Ok(())
}

async fn another_leader_is_asked_when_the_first_ends(bed: &mut Bed) -> Result<()> {
    for index in 0..2 {
        bed.lab.controllers[index].process().terminate().await?;
        bed.wait_for_all("another leader answers").await?;
        bed.lab.controllers[index].restart()?;
        bed.lab.controllers[index].wait_until_ready().await?;
    }
    Ok(())
}

async fn a_new_authority_is_trusted_and_served_without_a_restart(bed: &mut Bed) -> Result<()> {
    let before = bed.authority().await?;
    let secrets: Api<Secret> = Api::namespaced(bed.lab.cluster.client(), SYSTEM_NAMESPACE);
    secrets.delete("ferrocast-explain-authority", &DeleteParams::default()).await?;
    eventually("there is another authority", CONVERGENCE_TIME_MAX, async || {
        let now = bed.authority().await?;
        ensure_that(now != before, || "not yet".to_owned())
    })
    .await?;
    bed.wait_for_all("all serve it").await
}
