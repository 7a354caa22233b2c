//! Announcers besides BGP: a plugin outside of the process, whatever becomes of it or of the speaker, and one in a custom binary.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use ferrocast_tests::cases;
use ferrocast_tests::ferrocast::built;
use ferrocast_tests::lab::{CONVERGENCE_TIME_MAX, Lab, NODES, host_route};
use ferrocast_tests::objects::{self, CONFIG_NAMESPACE, Service};
use ferrocast_tests::process::{Process, command};
use ferrocast_tests::runner::{self, Context};
use ferrocast_tests::wait::{ensure_that, eventually, throughout};
use serde_json::{Value, json};

/// The node whose speaker has plugins.
const NODE: &str = NODES[0];
/// How long nothing may change while a part is away.
const WATCHED: Duration = Duration::from_secs(3);
/// A state is told by SpeakerStatus, which is written at most every five seconds, after the answer times of the protocol.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let cases = cases![
        announcements_go_through_a_plugin_and_it_is_told_how_far_they_came,
        plugin_that_is_killed_is_told_and_catches_up_when_it_is_back,
        plugin_that_is_stopped_delays_nobody,
        speaker_that_is_killed_and_restarted_takes_nothing_away_and_leaves_nothing_stale,
        socket_that_is_not_to_be_trusted_is_refused,
        advertisement_with_wrong_parameters_is_not_in_force_and_says_why,
        custom_binary_announces_by_its_own_announcer,
    ];
    runner::main::<Bed>("e2e_plugins", env!("CARGO_TARGET_TMPDIR"), cases)
}

struct Bed {
    lab: Lab,
    dir: PathBuf,
    plugin: Process,
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
        restart_speaker(&mut lab, &["--plugin-dir", &dir.to_string_lossy()]).await?;
        Ok(Self { lab, dir, plugin })
    }

    fn diagnose(&self) -> String {
        format!("{}\n{}", self.lab.diagnose(), self.plugin.tail())
    }
}

fn start_plugin(dir: &Path) -> Result<Process> {
    let mut plugin = command(Some(NODE), &built("lab-plugin")?);
    plugin.arg("--dir").arg(dir).env("FERROCAST_FILE", dir.join("announced.txt"));
    Process::start("plugin", dir, &mut plugin)
}

async fn restart_speaker(lab: &mut Lab, arguments: &[&str]) -> Result<()> {
    let speaker = &mut lab.speakers[0];
    if speaker.process().is_running()? {
        speaker.process().terminate().await?;
    }
    speaker.set_arguments(arguments);
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
    bed.remove("through").await?;
    bed.wait_for_file("the plugin has withdrawn it", |now| !now.contains(&line)).await
}

async fn plugin_that_is_killed_is_told_and_catches_up_when_it_is_back(bed: &mut Bed) -> Result<()> {
    bed.plugin.kill()?;
    bed.told("the plugin is gone", |told| told["state"] == "missing" || told["state"] == "lost").await?;
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
    bed.plugin.signal("CONT")?;
    let stalled = stalled?;
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
    let dir = bed.dir.to_string_lossy().into_owned();
    restart_speaker(&mut bed.lab, &["--plugin-dir", &dir]).await?;
    bed.wait_for_file("only what is stale goes", |now| now.contains(&stays) && !now.contains(&goes)).await?;
    bed.remove("stays").await
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
    restart_speaker(&mut bed.lab, &[]).await?;
    let line = host_route(&bed.service("own").await?);
    eventually("the binary's own announcer has the prefix", CONVERGENCE_TIME_MAX, async || {
        let now = std::fs::read_to_string(&own)?;
        ensure_that(now.lines().any(|known| known == line), || now.clone())
    })
    .await?;
    bed.told("it is told as a part of the process", |told| told["state"] == "inProcess").await.map(drop)
}
