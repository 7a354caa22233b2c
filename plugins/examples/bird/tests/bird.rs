//! The plugin beside a real BIRD that has no network: the contract, and what becomes of it when BIRD is in trouble.
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]
mod bench;

use std::{fs, sync::Arc, time::Duration};

use bench::{Bench, Speaker, program, run};
use ferrocast_conformance::{Network, Options, Probe, Subject};
use ferrocast_core::announce::AnnouncementState::{Active, Draining};

/// A BIRD that has nobody to talk to. What comes behind the include is the test's.
fn configuration(bench: &Bench) -> String {
    format!("router id 192.0.2.254;\ninclude \"{}\";\nprotocol device {{ }}\n", bench.include().display())
}

fn is_skipped() -> bool {
    let absent = program("bird").is_none() || program("birdc").is_none();
    if absent {
        println!("skipped: needs bird2");
    }
    absent
}

/// The routes that BIRD prints, and whether each is draining.
fn read(printed: &str) -> Network {
    let mut network = Network::new();
    let mut last = None;
    for line in printed.lines() {
        let prefix = line.split_whitespace().next().and_then(|word| word.parse().ok());
        if let Some(prefix) = prefix {
            network.insert(prefix, false);
            last = Some(prefix);
        } else if let Some(last) = last
            && line.trim() == "ferrocast_draining: 1"
        {
            network.insert(last, true);
        }
    }
    network
}

/// What BIRD has. It ends a long answer early when it gets another configuration meanwhile: then it is asked again.
fn network(bench: &Bench) -> Result<Network, String> {
    let ask = |protocol: &str| loop {
        let printed = bench.ask("bird", &format!("show route protocol {protocol} all"));
        let (Ok(words) | Err(words)) = &printed;
        if !words.contains("Stopped due to reconfiguration") {
            return printed;
        }
    };
    Ok(read(&(ask("ferrocast4")? + &ask("ferrocast6")?)))
}

/// Plugin, BIRD and speaker, and two prefixes that BIRD has.
async fn with_two_prefixes(bench: &mut Bench) -> (bench::Running, bench::Running, Speaker) {
    let plugin = bench.plugin("bird").await;
    let bird = bench.bird("bird", &configuration(bench), None).await;
    let mut speaker = bench.speaker();
    speaker.want(&["192.0.2.1/32", "2001:db8::1/128"], Active, "{}").await;
    let target = speaker.reached().await;
    assert!(target.reason.contains("BIRD 2") && target.announced == 2, "{target:?}");
    assert_eq!(network(bench).unwrap().len(), 2);
    (plugin, bird, speaker)
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_passes_the_conformance_suite_with_its_own_restart() {
    if is_skipped() {
        return;
    }
    let bench = Arc::new(Bench::new());
    let _plugin = bench.plugin("bird").await;
    let _bird = bench.bird("bird", &configuration(&bench), None).await;
    let probed = bench.clone();
    let pid = bench.path("plugin.pid").display().to_string();
    let options = Options {
        probe: Some(Probe::Function(Arc::new(move || network(&probed).unwrap()))),
        restart: Some(format!("old=$(cat {pid}); kill -KILL $old; while [ $(cat {pid}) = $old ]; do sleep 0.01; done")),
        settle: Duration::from_millis(500),
        ..Options::default()
    };
    let report = ferrocast_conformance::run(Subject::Socket(bench.path("bird.sock")), &options).await;
    println!("{report}");
    assert!(report.is_good(), "{report}\n{}", fs::read_to_string(bench.path("plugin.log")).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn status_has_birds_words_until_bird_conf_is_mended_and_bird_keeps_what_it_has() {
    if is_skipped() {
        return;
    }
    let mut bench = Bench::new();
    let (_plugin, _bird, mut speaker) = with_two_prefixes(&mut bench).await;
    fs::write(bench.path("bird.conf"), configuration(&bench) + "protocol nonsense;\n").unwrap();
    speaker.want(&["192.0.2.2/32"], Draining, "{}").await;
    let target = speaker.told("BIRD's words", |target| target.reason.contains("syntax error")).await;
    assert!(target.reason.contains("bird.conf:4:") && !target.up, "{target:?}");
    assert_eq!((target.announced, target.generation), (2, 1), "the old set is in force");
    assert_eq!(network(&bench).unwrap().len(), 2);
    fs::write(bench.path("bird.conf"), configuration(&bench)).unwrap();
    speaker.reached().await;
    assert_eq!(network(&bench).unwrap(), [("192.0.2.2/32".parse().unwrap(), true)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn file_is_put_back_when_bird_does_not_understand_it() {
    if is_skipped() {
        return;
    }
    let mut bench = Bench::new();
    let (_plugin, _bird, mut speaker) = with_two_prefixes(&mut bench).await;
    let before = fs::read_to_string(bench.include()).unwrap();
    // The file declares what is declared already.
    let clash = format!("attribute int ferrocast_tag;\n{}", configuration(&bench));
    fs::write(bench.path("bird.conf"), clash).unwrap();
    speaker.want(&["192.0.2.2/32"], Active, "{}").await;
    speaker.told("BIRD's words", |target| target.reason.contains("ferrocast.conf:")).await;
    assert_eq!(fs::read_to_string(bench.include()).unwrap(), before);
    fs::write(bench.path("bird.conf"), configuration(&bench)).unwrap();
    speaker.reached().await;
    assert_eq!(network(&bench).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bird_that_ends_is_told_and_one_that_comes_again_has_everything() {
    if is_skipped() {
        return;
    }
    let mut bench = Bench::new();
    let (_plugin, bird, mut speaker) = with_two_prefixes(&mut bench).await;
    drop(bird);
    speaker.told("BIRD is away", |target| !target.up && target.reason.contains("BIRD cannot be reached")).await;
    speaker.want(&["192.0.2.3/32"], Active, r#"{"metric": 5}"#).await;
    bench::eventually("the file has the newest set", || {
        let text = fs::read_to_string(bench.include()).map_err(|error| error.to_string())?;
        if text.contains("192.0.2.3/32") { Ok(()) } else { Err(text) }
    })
    .await;
    let _bird = bench.bird("bird", &configuration(&bench), None).await;
    assert_eq!(network(&bench).unwrap().len(), 1, "BIRD has read it by itself");
    speaker.reached().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bird_that_hangs_is_told_and_what_it_missed_is_brought_when_it_goes_on() {
    if is_skipped() {
        return;
    }
    let mut bench = Bench::new();
    let (_plugin, bird, mut speaker) = with_two_prefixes(&mut bench).await;
    run("kill", &["-STOP", &bird.pid().to_string()]).unwrap();
    speaker.want(&["192.0.2.4/32"], Active, "{}").await;
    speaker.told("BIRD hangs", |target| !target.up && target.reason.contains("does not answer")).await;
    run("kill", &["-CONT", &bird.pid().to_string()]).unwrap();
    speaker.reached().await;
    assert_eq!(network(&bench).unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bird_conf_without_the_include_is_told() {
    if is_skipped() {
        return;
    }
    let mut bench = Bench::new();
    let _plugin = bench.plugin("bird").await;
    let _bird = bench.bird("bird", "router id 192.0.2.254;\nprotocol device { }\n", None).await;
    let mut speaker = bench.speaker();
    speaker.want(&["192.0.2.1/32"], Active, "{}").await;
    let target = speaker.told("it is told", |target| target.reason.contains("does not include")).await;
    assert!(!target.up && target.generation == 0, "{target:?}");
    fs::write(bench.path("bird.conf"), configuration(&bench)).unwrap();
    speaker.reached().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn provisional_set_after_a_restart_of_both_sides_adds_to_the_file_and_the_first_whole_set_replaces_it() {
    if is_skipped() {
        return;
    }
    let mut bench = Bench::new();
    let (plugin, _bird, speaker) = with_two_prefixes(&mut bench).await;
    drop((speaker, plugin));
    let _plugin = bench.plugin("bird").await;
    let mut speaker = bench.speaker();
    speaker.provisional = true;
    speaker.want(&["192.0.2.1/32", "192.0.2.9/32"], Draining, "{}").await;
    speaker.reached().await;
    let draining = |prefix: &str, draining| (prefix.parse().unwrap(), draining);
    let kept = draining("2001:db8::1/128", false);
    let named = [draining("192.0.2.1/32", true), draining("192.0.2.9/32", true)];
    assert_eq!(network(&bench).unwrap(), [named[0], named[1], kept].into());
    speaker.provisional = false;
    speaker.want(&["192.0.2.1/32", "192.0.2.9/32"], Draining, "{}").await;
    speaker.reached().await;
    assert_eq!(network(&bench).unwrap(), named.into());
}
