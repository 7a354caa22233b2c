//! Announcers besides BGP: a plugin outside of the process, whatever becomes of it or of the speaker, and one in a custom binary.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ferrocast_tests::cases;
use ferrocast_tests::ferrocast::{binary, built};
use ferrocast_tests::lab::{CONVERGENCE_TIME_MAX, HUB, Lab, NODES, host_route};
use ferrocast_tests::objects::{self, CONFIG_NAMESPACE, Service};
use ferrocast_tests::process::{Process, command, free_port, run};
use ferrocast_tests::runner::{self, Context};
use ferrocast_tests::wait::{ensure_that, eventually, pause, throughout};
use serde_json::{Value, json};

/// The node whose speaker has plugins.
const NODE: &str = NODES[0];
/// How long nothing may change while a part is away.
const WATCHED: Duration = Duration::from_secs(3);
/// A state is told by SpeakerStatus, which is written at most every five seconds, after the answer times of the protocol.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

/// Looks at the memory while a flood is borne: ten seconds of them.
const FLOOD_SAMPLES: u32 = 50;
/// Between two looks at the memory.
const SAMPLED: Duration = Duration::from_millis(200);
/// What is told of an announcer has a problem and a reason, each of 512 octets at most, and little else.
const TOLD_LEN_MAX: usize = 3_000;
/// Somebody who runs no plugins.
const NOBODY: u32 = 65_534;
/// By how much a flood may make the speaker grow: a second of it is two messages of the greatest length, twice over while they
/// are read, and what an allocator keeps; without limits it would be gigabytes. Octets.
const FLOOD_MEMORY_MAX: u64 = 48 << 20;

fn main() -> ExitCode {
    let cases = cases![
        announcements_go_through_a_plugin_and_it_is_told_how_far_they_came,
        plugin_that_is_killed_is_told_and_catches_up_when_it_is_back,
        plugin_that_is_stopped_delays_nobody,
        speaker_that_is_killed_and_restarted_takes_nothing_away_and_leaves_nothing_stale,
        plugin_that_ends_keeps_or_withdraws_as_it_was_told,
        socket_that_is_not_to_be_trusted_is_refused,
        socket_of_another_user_is_refused,
        plugin_of_another_protocol_is_refused_and_one_that_also_speaks_ours_is_not,
        lying_plugin_and_one_with_long_texts_harm_nobody_and_are_told,
        flood_harms_nobody_takes_no_memory_and_is_told,
        plugin_withdraws_when_no_speaker_comes_back_and_nothing_stale_is_left,
        advertisement_with_wrong_parameters_is_not_in_force_and_says_why,
        custom_binary_announces_by_its_own_announcer,
    ];
    runner::main::<Bed>("e2e_plugins", env!("CARGO_TARGET_TMPDIR"), cases)
}

struct Bed {
    lab: Lab,
    dir: PathBuf,
    plugin: Process,
    /// Of somebody who may ask for explanations.
    kubeconfig: PathBuf,
}

fn class(name: &str) -> Value {
    let schema = json!({"type": "object", "properties": {"note": {"type": "string", "maxLength": 8}}});
    objects::config(CONFIG_NAMESPACE, "AnnouncerClass", name, json!({"parametersSchema": schema}))
}

fn advertisement(parameters: &Value) -> Value {
    let spec = json!({"announcer": "file", "parameters": parameters});
    objects::config(CONFIG_NAMESPACE, "Advertisement", "to-file", spec)
}

impl Context for Bed {
    async fn start(dir: &Path) -> Result<Self> {
        let mut lab = Lab::with_ferrocast_only(dir, 1).await?;
        let dir = dir.join("plugins");
        std::fs::create_dir(&dir)?;
        std::fs::set_permissions(&dir, Permissions::from_mode(0o700))?;
        lab.cluster.apply_all(&[class("file"), advertisement(&json!({"note": "hi"}))]).await?;
        let plugin = start_plugin(&dir)?;
        let controller = &mut lab.controllers[0];
        controller.process().terminate().await?;
        controller.set_arguments(&[&format!("--explain={HUB}:{}", free_port()?)]);
        controller.restart()?;
        controller.wait_until_ready().await?;
        restart_speaker(&mut lab, &arguments(&dir)).await?;
        let kubeconfig = lab.who_may_explain().await?;
        Ok(Self { lab, dir, plugin, kubeconfig })
    }

    fn diagnose(&self) -> String {
        format!("{}\n{}", self.lab.diagnose(), self.plugin.tail())
    }
}

/// A speaker's, with plugins in this folder.
fn arguments(dir: &Path) -> [String; 2] {
    [format!("--plugin-dir={}", dir.display()), "--explain=[::]:9132".to_owned()]
}

fn start_plugin(dir: &Path) -> Result<Process> {
    start_plugin_with(dir, &[])
}

fn start_plugin_with(dir: &Path, arguments: &[&str]) -> Result<Process> {
    let mut plugin = command(Some(NODE), &built("lab-plugin")?);
    plugin.arg("--dir").arg(dir).args(arguments).env("FERROCAST_FILE", dir.join("announced.txt"));
    Process::start("plugin", dir, &mut plugin)
}

async fn restart_speaker(lab: &mut Lab, arguments: &[impl AsRef<str>]) -> Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let speaker = &mut lab.speakers[0];
    if speaker.process().is_running()? {
        speaker.process().terminate().await?;
    }
    speaker.set_arguments(&arguments);
    speaker.restart()?;
    speaker.wait_until_ready().await?;
    lab.wait_for_sessions().await
}

impl Bed {
    fn file(&self) -> Result<BTreeSet<String>> {
        Ok(std::fs::read_to_string(self.dir.join("announced.txt"))?.lines().map(str::to_owned).collect())
    }

    async fn wait_for_file(&self, what: &str, fits: impl Fn(&BTreeSet<String>) -> bool) -> Result<()> {
        eventually(what, CONVERGENCE_TIME_MAX, async || {
            let now = self.file()?;
            ensure_that(fits(&now), || format!("{now:?}"))
        })
        .await
    }

    /// A Service with an address, announced everywhere; returns the address.
    async fn service(&self, name: &str) -> Result<String> {
        let service = Service::named(name);
        self.lab.apply_service(&service, &NODES).await?;
        let address = self.lab.cluster.wait_for_addresses("default", name, 1).await?.remove(0);
        self.lab.wait_for_hops(&host_route(&address), &NODES).await?;
        Ok(address)
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.lab.cluster.delete(&Service::named(name).object()).await
    }

    /// Waits until the speaker says of its announcer what fits.
    async fn told(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        eventually(what, TOLD_WITHIN, async || {
            let statuses = self.lab.cluster.speaker_statuses().await?;
            let own = statuses.iter().find(|status| status.metadata.name.as_deref() == Some(NODE));
            let told = own.map_or(Value::Null, |own| own.data["status"]["announcers"][0].clone());
            ensure_that(fits(&told), || told.to_string())?;
            Ok(told)
        })
        .await
    }

    async fn connected(&self) -> Result<Value> {
        self.told("the plugin is connected and has everything", |told| {
            told["state"] == "connected" && told["reached"] == told["generation"] && told["targetsUp"] == 1
        })
        .await
    }

    /// What `ferrocast explain` says, as JSON.
    fn explain(&self, kind: &str, name: &str) -> Result<String> {
        let mut explain = Command::new(binary()?);
        run(explain.args(["explain", kind, name, "-o", "json", "--kubeconfig"]).arg(&self.kubeconfig))
    }

    async fn explanation_has(&self, kind: &str, name: &str, words: &str) -> Result<()> {
        eventually("the explanation says how the plugin is", CONVERGENCE_TIME_MAX, async || {
            let told = self.explain(kind, name)?;
            ensure_that(told.contains(words), || format!("no {words:?} in {told}"))
        })
        .await
    }

    async fn explained_of_node(&self, words: &str) -> Result<()> {
        self.explanation_has("node", NODE, words).await
    }

    /// Waits until the explanations of the node and of this Service have these words.
    async fn explained(&self, service: &str, words: &str) -> Result<()> {
        self.explained_of_node(words).await?;
        self.explanation_has("service", &format!("default/{service}"), words).await
    }

    /// What was dropped of what the plugin sent, so far.
    fn dropped(&self) -> f64 {
        self.lab.speakers[0].metric("ferrocast_plugin_dropped_total").unwrap_or(0.0)
    }

    /// Another plugin stands in place of the decent one.
    async fn replace_plugin(&mut self, fault: &str) -> Result<()> {
        self.plugin.kill()?;
        let mut plugin = command(Some(NODE), &built("lab-hostile-plugin")?);
        plugin.arg(fault).arg(self.dir.join("file.sock"));
        self.plugin = Process::start(&format!("plugin-{fault}"), &self.dir, &mut plugin)?;
        Ok(())
    }

    /// The decent plugin is back, and everything as it should be.
    async fn restore_plugin(&mut self) -> Result<()> {
        self.plugin.kill()?;
        self.plugin = start_plugin(&self.dir)?;
        self.connected().await.map(drop)
    }

    /// Since when each BGP session of the speaker stands.
    fn sessions_since(&self) -> Result<Vec<Value>> {
        Ok(self.lab.speakers[0].sessions()?.iter().map(|session| session["since"].clone()).collect())
    }

    /// Memory of the speaker, octets.
    fn speaker_memory(&mut self) -> Result<u64> {
        let pid = self.lab.speakers[0].process().pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? << 10)
    }

    /// The decisions for the announcer `file` on a Service, by reason.
    fn reasons(&self, service: &str) -> Result<Vec<String>> {
        let document: Value = serde_json::from_str(&self.lab.speakers[0].get("/v1/decisions")?)?;
        let rows = document["decisions"].as_array().cloned().unwrap_or_default();
        let of = rows.iter().filter(|row| row["announcer"] == "file" && row["service"] == format!("default/{service}"));
        Ok(of.map(|row| row["reason"].as_str().unwrap_or_default().to_owned()).collect())
    }
}

async fn announcements_go_through_a_plugin_and_it_is_told_how_far_they_came(bed: &mut Bed) -> Result<()> {
    let address = bed.service("through").await?;
    let line = host_route(&address);
    bed.wait_for_file("the plugin has the prefix", |now| now.contains(&line)).await?;
    ensure!(bed.reasons("through")? == ["announced"], "{:?}", bed.reasons("through")?);
    let told = bed.connected().await?;
    ensure!(told["announced"].as_u64() >= Some(1) && told["protocol"] == 1, "{told}");
    ensure!(bed.lab.speakers[0].metric("ferrocast_plugin_up")? == 1.0, "the metric says down");
    bed.explanation_has("service", "default/through", r#"by Advertisement \"to-file\""#).await?;
    bed.explanation_has("service", "default/through", r#""code":"reached""#).await?;
    bed.remove("through").await?;
    bed.wait_for_file("the plugin has withdrawn it", |now| !now.contains(&line)).await
}

async fn plugin_that_is_killed_is_told_and_catches_up_when_it_is_back(bed: &mut Bed) -> Result<()> {
    bed.plugin.kill()?;
    bed.told("the plugin is gone", |told| told["state"] == "missing" || told["state"] == "lost").await?;
    bed.explained_of_node("announcerDown").await?;
    ensure!(bed.lab.speakers[0].metric("ferrocast_plugin_up")? == 0.0, "the metric says up");
    bed.lab.cluster.wait_for_event(CONFIG_NAMESPACE, "file", &["AnnouncerDown"]).await?;
    // BGP goes on meanwhile.
    let line = host_route(&bed.service("meanwhile").await?);
    ensure!(!bed.file()?.contains(&line), "somebody else wrote the file");
    bed.plugin = start_plugin(&bed.dir)?;
    bed.wait_for_file("the plugin has caught up", |now| now.contains(&line)).await?;
    bed.connected().await?;
    bed.remove("meanwhile").await
}

async fn plugin_that_is_stopped_delays_nobody(bed: &mut Bed) -> Result<()> {
    bed.connected().await?;
    bed.plugin.signal("STOP")?;
    let line = host_route(&bed.service("stalled").await?);
    let stalled = bed
        .told("the plugin stalls", |told| {
            !["connected", "connecting"].contains(&told["state"].as_str().unwrap_or_default())
        })
        .await;
    let explained = bed.explained("stalled", "has not answered for").await;
    bed.plugin.signal("CONT")?;
    let stalled = stalled?;
    explained?;
    ensure!(stalled["problem"].as_str().is_some_and(|why| !why.is_empty()), "{stalled}");
    bed.wait_for_file("the plugin has caught up", |now| now.contains(&line)).await?;
    bed.connected().await?;
    bed.remove("stalled").await
}

async fn speaker_that_is_killed_and_restarted_takes_nothing_away_and_leaves_nothing_stale(bed: &mut Bed) -> Result<()> {
    let stays = host_route(&bed.service("stays").await?);
    let goes = host_route(&bed.service("goes").await?);
    bed.wait_for_file("both are there", |now| now.contains(&stays) && now.contains(&goes)).await?;
    bed.lab.speakers[0].process().kill()?;
    bed.remove("goes").await?;
    throughout("nothing is withdrawn while the speaker is away", WATCHED, async || {
        let now = bed.file()?;
        ensure_that(now.contains(&stays) && now.contains(&goes), || format!("{now:?}"))
    })
    .await?;
    restart_speaker(&mut bed.lab, &arguments(&bed.dir)).await?;
    bed.wait_for_file("only what is stale goes", |now| now.contains(&stays) && !now.contains(&goes)).await?;
    bed.remove("stays").await
}

async fn plugin_that_ends_keeps_or_withdraws_as_it_was_told(bed: &mut Bed) -> Result<()> {
    let line = host_route(&bed.service("ends").await?);
    bed.wait_for_file("it is announced", |now| now.contains(&line)).await?;
    bed.plugin.terminate().await?;
    ensure!(bed.file()?.contains(&line), "what may be kept was withdrawn");
    bed.plugin = start_plugin_with(&bed.dir, &["--withdraw-on-exit"])?;
    bed.connected().await?;
    bed.plugin.terminate().await?;
    ensure!(bed.file()?.is_empty(), "it is still announced: {:?}", bed.file()?);
    bed.restore_plugin().await?;
    bed.wait_for_file("it is announced again", |now| now.contains(&line)).await?;
    bed.remove("ends").await
}

async fn socket_that_is_not_to_be_trusted_is_refused(bed: &mut Bed) -> Result<()> {
    bed.plugin.terminate().await?;
    let socket = bed.dir.join("file.sock");
    let elsewhere = bed.dir.join("elsewhere.sock");
    let mut plugin = command(Some(NODE), &built("lab-plugin")?);
    plugin.arg("--socket").arg(&elsewhere).env("FERROCAST_FILE", bed.dir.join("other.txt"));
    let mut other = Process::start("other-plugin", &bed.dir, &mut plugin)?;
    if std::fs::symlink_metadata(&socket).is_ok() {
        std::fs::remove_file(&socket)?;
    }
    std::os::unix::fs::symlink(&elsewhere, &socket)?;
    let told = bed.told("a symbolic link is refused", |told| told["state"] == "refused").await?;
    ensure!(told["problem"].as_str().is_some_and(|why| why.contains("link")), "{told}");
    other.kill()?;
    std::fs::remove_file(&socket)?;
    bed.plugin = start_plugin(&bed.dir)?;
    bed.connected().await.map(drop)
}

async fn socket_of_another_user_is_refused(bed: &mut Bed) -> Result<()> {
    bed.plugin.kill()?;
    let (socket, elsewhere) = (bed.dir.join("file.sock"), bed.dir.join("of-another.sock"));
    let mut plugin = command(Some(NODE), &built("lab-plugin")?);
    plugin.arg("--socket").arg(&elsewhere).env("FERROCAST_FILE", bed.dir.join("other.txt"));
    bed.plugin = Process::start("plugin-of-another", &bed.dir, &mut plugin)?;
    eventually("the plugin listens", CONVERGENCE_TIME_MAX, async || {
        Ok(std::os::unix::fs::chown(&elsewhere, Some(NOBODY), Some(NOBODY))?)
    })
    .await?;
    std::fs::rename(&elsewhere, &socket)?;
    let told = bed.told("it is refused", |told| told["state"] == "refused").await?;
    let words = format!("which belongs to user {NOBODY}");
    ensure!(told["problem"].as_str().is_some_and(|why| why.contains(&words)), "{told}");
    let address = bed.service("user").await?;
    bed.explained("user", &words).await?;
    bed.restore_plugin().await?;
    bed.wait_for_file("the plugin has caught up", |now| now.contains(&host_route(&address))).await?;
    bed.remove("user").await
}

async fn plugin_of_another_protocol_is_refused_and_one_that_also_speaks_ours_is_not(bed: &mut Bed) -> Result<()> {
    bed.replace_plugin("newer").await?;
    let told = bed.told("it is refused", |told| told["state"] == "refused").await?;
    let words = "it speaks protocol 7 to 9";
    ensure!(told["problem"].as_str().is_some_and(|why| why.contains(words)), "{told}");
    ensure!(bed.lab.speakers[0].metric("ferrocast_plugin_up")? == 0.0, "the metric says up");
    let address = bed.service("upgraded").await?;
    bed.explained("upgraded", words).await?;
    bed.replace_plugin("wider").await?;
    bed.told("what both speak is spoken", |told| {
        told["state"] == "connected" && told["protocol"] == 1 && told["version"] == "hostile"
    })
    .await?;
    bed.restore_plugin().await?;
    bed.wait_for_file("the plugin has caught up", |now| now.contains(&host_route(&address))).await?;
    bed.remove("upgraded").await
}

/// A plugin with this fault is told in this state and with these words; BGP sessions stay, and announcements go on.
async fn harms_nobody(bed: &mut Bed, fault: &str, state: &str, words: &str) -> Result<()> {
    let (sessions, dropped) = (bed.sessions_since()?, bed.dropped());
    bed.replace_plugin(fault).await?;
    let address = bed.service(fault).await?;
    let told = bed.told("how it is", |told| told["state"] == state && told.to_string().contains(words)).await?;
    ensure!(told.to_string().len() < TOLD_LEN_MAX, "it is {} octets long", told.to_string().len());
    bed.explained_of_node(words).await?;
    let up = f64::from(u8::from(state == "connected"));
    // It may be dialled again just now, and what was told be of the connection before.
    eventually("the metric says so, too", CONVERGENCE_TIME_MAX, async || {
        let now = bed.lab.speakers[0].metric("ferrocast_plugin_up")?;
        ensure_that(now == up, || format!("{now}"))
    })
    .await?;
    if state == "connected" {
        ensure!(bed.dropped() > dropped, "nothing is counted as dropped");
    } else {
        bed.explained(fault, words).await?;
    }
    ensure!(bed.sessions_since()? == sessions, "a BGP session ended");
    bed.restore_plugin().await?;
    bed.wait_for_file("the plugin has caught up", |now| now.contains(&host_route(&address))).await?;
    bed.remove(fault).await
}

async fn lying_plugin_and_one_with_long_texts_harm_nobody_and_are_told(bed: &mut Bed) -> Result<()> {
    harms_nobody(bed, "lies", "faulty", "has reached generation").await?;
    harms_nobody(bed, "texts", "connected", "text").await
}

async fn flood_harms_nobody_takes_no_memory_and_is_told(bed: &mut Bed) -> Result<()> {
    bed.connected().await?;
    let before = bed.speaker_memory()?;
    bed.replace_plugin("floods").await?;
    let mut most = before;
    for _ in 0..FLOOD_SAMPLES {
        pause(SAMPLED).await;
        most = most.max(bed.speaker_memory()?);
    }
    println!("     the speaker has grown by {} KiB", (most - before) >> 10);
    ensure!(most - before < FLOOD_MEMORY_MAX, "the speaker has grown by {} octets", most - before);
    harms_nobody(bed, "floods", "connected", "status").await
}

async fn plugin_withdraws_when_no_speaker_comes_back_and_nothing_stale_is_left(bed: &mut Bed) -> Result<()> {
    let mut arguments = arguments(&bed.dir).to_vec();
    arguments.push("--plugin-orphan-hold=5s".to_owned());
    restart_speaker(&mut bed.lab, &arguments).await?;
    let stays = host_route(&bed.service("stays").await?);
    let goes = host_route(&bed.service("goes").await?);
    bed.wait_for_file("both are there", |now| now.contains(&stays) && now.contains(&goes)).await?;
    bed.lab.speakers[0].process().kill()?;
    throughout("nothing is withdrawn within the hold", WATCHED, async || {
        let now = bed.file()?;
        ensure_that(now.contains(&stays) && now.contains(&goes), || format!("{now:?}"))
    })
    .await?;
    bed.wait_for_file("everything is withdrawn after it", BTreeSet::is_empty).await?;
    bed.remove("goes").await?;
    restart_speaker(&mut bed.lab, &self::arguments(&bed.dir)).await?;
    bed.wait_for_file("what is wanted is back", |now| now.contains(&stays) && !now.contains(&goes)).await?;
    bed.connected().await?;
    bed.remove("stays").await
}

async fn advertisement_with_wrong_parameters_is_not_in_force_and_says_why(bed: &mut Bed) -> Result<()> {
    let line = host_route(&bed.service("parameters").await?);
    bed.wait_for_file("it is announced", |now| now.contains(&line)).await?;
    bed.lab.cluster.apply(&advertisement(&json!({"note": 7}))).await?;
    let state = || async {
        let states = bed.lab.cluster.list("metallb.io/v1beta1", "ConfigurationState", CONFIG_NAMESPACE).await?;
        Ok::<_, anyhow::Error>(format!("{:?}", states.iter().map(|state| &state.data["status"]).collect::<Vec<_>>()))
    };
    eventually("ConfigurationState names the parameter", TOLD_WITHIN, async || {
        let told = state().await?;
        ensure_that(told.contains("spec.parameters.note"), || told)
    })
    .await?;
    // The last valid version stays in force.
    ensure!(bed.file()?.contains(&line), "it was withdrawn");
    bed.lab.cluster.apply(&advertisement(&json!({"note": "hi"}))).await?;
    bed.remove("parameters").await
}

async fn custom_binary_announces_by_its_own_announcer(bed: &mut Bed) -> Result<()> {
    bed.plugin.terminate().await?;
    let own = bed.dir.join("own.txt");
    bed.lab.speakers[0].set_program("ferrocast-with-file", &[("FERROCAST_FILE", own.as_path())]);
    restart_speaker(&mut bed.lab, &["--explain=[::]:9132"]).await?;
    let line = host_route(&bed.service("own").await?);
    eventually("the binary's own announcer has the prefix", CONVERGENCE_TIME_MAX, async || {
        let now = std::fs::read_to_string(&own)?;
        ensure_that(now.lines().any(|known| known == line), || now.clone())
    })
    .await?;
    bed.explanation_has("service", "default/own", &format!("{line}, line {line}")).await?;
    bed.told("it is told as a part of the process", |told| told["state"] == "inProcess").await.map(drop)
}
