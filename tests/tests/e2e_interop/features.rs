//! The rows of the matrix.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use ferrocast_tests::interop::{Daemon, Link, Options, Pair, SESSION_TIME_MAX, routes};
use ferrocast_tests::process::sh;
use ferrocast_tests::wait::{eventually, pause, throughout};
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};

/// What came out of one session.
#[derive(Debug)]
pub(crate) enum Cell {
    /// Seen in the daemon's tables.
    Works,
    /// Agreed upon in the OPEN messages; the daemon shows no more.
    InOpen,
    /// The daemon cannot; why.
    Lacks(&'static str),
    /// It should, and does not.
    Fails(String),
}

impl Cell {
    /// As the page of the book has it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::InOpen => "accepted in OPEN",
            Self::Lacks(_) => "peer lacks it",
            Self::Fails(_) => "fails",
        }
    }
}

/// One row.
pub(crate) struct Feature {
    pub(crate) name: &'static str,
    pub(crate) rfc: &'static str,
    pub(crate) run: for<'a> fn(&'a Link, &'a Path) -> LocalBoxFuture<'a, Result<Cell>>,
}

macro_rules! features {
    ($($name:literal, $rfc:literal, $run:expr;)*) => {
        &[$(Feature { name: $name, rfc: $rfc, run: |link, dir| Box::pin($run(link, dir)) }),*]
    };
}

pub(crate) const FEATURES: &[Feature] = features![
    "IPv4 unicast, we dial", "4271", |link, dir| plain(link, dir, |o| o.both_families = false);
    "IPv4 unicast, they dial", "4271", |link, dir| plain(link, dir, |o| (o.both_families, o.dials) = (false, true));
    "IPv6 unicast over IPv6, we dial", "4760, 2545", |link, dir| plain(link, dir, |o| (o.both_families, o.over_v6) = (false, true));
    "IPv6 unicast over IPv6, they dial", "4760, 2545", |link, dir| plain(link, dir, |o| (o.both_families, o.over_v6, o.dials) = (false, true, true));
    "both families over IPv4", "4760", |link, dir| plain(link, dir, |_| ());
    "both families over IPv6", "4760", |link, dir| plain(link, dir, |o| o.over_v6 = true);
    "both sides dial", "4271 §6.8", collision;
    "four-octet AS numbers", "6793", |link, dir| plain(link, dir, |o| o.speaker_asn = 4_200_000_600);
    "internal session, LOCAL_PREF", "4271", internal;
    "dynamicASN external", "", |link, dir| with_peer(link, dir, |_| (), json!({"dynamic": "external"}));
    "dynamicASN internal", "", |link, dir| with_peer(link, dir, |o| o.speaker_asn = o.router_asn, json!({"dynamic": "internal"}));
    "localASN", "7705", |link, dir| with_peer(link, dir, |o| o.speaker_asn = 65_010, json!({"my_asn": 64_600, "local_asn": 65_010}));
    "wrong AS is refused", "4271 §6.2", wrong_as;
    "hold time zero", "4271", |link, dir| with_peer(link, dir, |_| (), json!({"hold_s": 0}));
    "communities and large communities", "1997, 8092", communities;
    "extended communities, link bandwidth", "4360, 10005", extended_communities;
    "MED and AS path prepending", "4271", med;
    "500 communities on one route", "1997", many_communities;
    "10,000 routes, withdrawn at once", "4271", ten_thousand;
    "TCP-MD5, we dial", "2385", |link, dir| md5(link, dir, false);
    "TCP-MD5, they dial", "2385", |link, dir| md5(link, dir, true);
    "GTSM, we dial", "5082", |link, dir| plain(link, dir, |o| o.gtsm = true);
    "GTSM, they dial", "5082", |link, dir| plain(link, dir, |o| (o.gtsm, o.dials) = (true, true));
    "multihop, source address", "4271", |link, dir| plain(link, dir, |o| (o.multihop, o.both_families) = (true, false));
    "route refresh", "2918", refresh;
    "enhanced route refresh", "7313", enhanced_refresh;
    "graceful restart: routes kept over a crash", "4724", crash;
    "graceful restart: stale routes end with our End-of-RIB", "4724", stale;
    "graceful restart: planned restart without NOTIFICATION", "4724", planned_restart;
    "routes end with a drain", "4724, 8538", drain;
    "NOTIFICATION that keeps the routes (N bit)", "8538", notification_keeps;
    "graceful shutdown community", "8326", graceful_shutdown;
    "shutdown communication, ours", "9003", our_last_words;
    "shutdown communication, theirs", "9003", their_last_words;
    "IPv4 routes with IPv6 next hops", "8950", extended_next_hop;
    "unnumbered", "4861, 8950", unnumbered;
    "BFD", "5880, 5881, 9384", bfd;
    "roles", "9234", roles;
];

const V4: &str = "10.50.0.1/32";
const V6: &str = "fd50::1/128";

/// A pair with these options.
async fn pair(link: &Link, dir: &Path, change: impl FnOnce(&mut Options)) -> Result<Pair> {
    let mut options = Options::new(daemon(link));
    change(&mut options);
    Pair::start(link, options, dir).await
}

fn daemon(link: &Link) -> Daemon {
    link.daemon()
}

/// The routes that a session of these options carries.
fn carried(options: &Options) -> Vec<&'static str> {
    match (options.both_families, options.over_v6) {
        (true, _) => vec![V4, V6],
        (false, false) => vec![V4],
        (false, true) => vec![V6],
    }
}

async fn with_peer(link: &Link, dir: &Path, change: impl FnOnce(&mut Options), peer: Value) -> Result<Cell> {
    let mut pair = pair(link, dir, change).await?;
    pair.speak(&peer)?;
    pair.established().await?;
    for prefix in carried(&pair.options) {
        pair.learned(prefix, &[]).await?;
    }
    Ok(Cell::Works)
}

async fn plain(link: &Link, dir: &Path, change: impl FnOnce(&mut Options)) -> Result<Cell> {
    with_peer(link, dir, change, json!({})).await
}

/// Established with both routes learned.
async fn up(link: &Link, dir: &Path, change: impl FnOnce(&mut Options), peer: Value) -> Result<Pair> {
    let mut pair = pair(link, dir, change).await?;
    pair.speak(&peer)?;
    pair.established().await?;
    for prefix in carried(&pair.options) {
        pair.learned(prefix, &[]).await?;
    }
    Ok(pair)
}

/// Both dial for some seconds; one session remains, and stays.
async fn collision(link: &Link, dir: &Path) -> Result<Cell> {
    let mut pair = pair(link, dir, |o| o.dials = true).await?;
    let ours = pair.peer(&json!({"passive": false}));
    // somebody passive has the speaker listen
    let other = json!({"name": "x", "my_asn": 64_600, "peer_asn": 1, "address": "10.99.250.1", "passive": true});
    pair.tell(&json!({"peers": [ours, other], "routes": routes()}))?;
    pair.established().await?;
    pair.learned(V4, &[]).await?;
    let before = pair.session()?["flaps"].clone();
    pause(Duration::from_secs(3)).await;
    let after = pair.session()?;
    ensure!(after["flaps"] == before && after["state"] == "Established", "it became {after}");
    Ok(Cell::Works)
}

async fn internal(link: &Link, dir: &Path) -> Result<Cell> {
    let mut pair = pair(link, dir, |o| o.speaker_asn = o.router_asn).await?;
    pair.tell(&json!({"peers": [pair.peer(&json!({}))], "routes": [{"prefix": V4, "local_pref": 250}]}))?;
    let wanted = match pair.daemon {
        Daemon::Bird => "BGP.local_pref: 250",
        Daemon::Frr => "localpref 250",
        Daemon::GoBgp => "\"value\":250",
        Daemon::OpenBgpd => "localpref 250",
    };
    pair.learned(V4, &[wanted]).await?;
    Ok(Cell::Works)
}

async fn wrong_as(link: &Link, dir: &Path) -> Result<Cell> {
    let mut pair = pair(link, dir, |_| ()).await?;
    pair.speak(&json!({"peer_asn": 65_111}))?;
    pair.wait_for("refused", |s| s["lastError"].as_str().unwrap_or_default().contains("2/2 Bad Peer AS")).await?;
    pause(Duration::from_secs(3)).await;
    let opens = pair.session()?["sent"][0].as_u64().unwrap_or_default();
    ensure!(opens <= 4, "{opens} attempts in a few seconds");
    Ok(Cell::Works)
}

async fn communities(link: &Link, dir: &Path) -> Result<Cell> {
    let pair = up(link, dir, |_| (), json!({})).await?;
    let wanted: &[&str] = match pair.daemon {
        Daemon::Bird => &["(64600,7) (64600,100)", "(64600, 1, 2)"],
        Daemon::Frr => &["64600:7 64600:100", "64600:1:2"],
        Daemon::GoBgp => &["[4233625607,4233625700]", "\"ASN\":64600,\"LocalData1\":1,\"LocalData2\":2"],
        Daemon::OpenBgpd => &["64600:7 64600:100", "64600:1:2"],
    };
    pair.learned(V4, wanted).await?;
    Ok(Cell::Works)
}

async fn extended_communities(link: &Link, dir: &Path) -> Result<Cell> {
    // route target 64600:7, and transitive link bandwidth of 125,000,000 octets/s
    let extended = json!([[0, 2, 0xfc, 0x58, 0, 0, 0, 7], [0, 4, 0xfc, 0x58, 0x4c, 0xee, 0x6b, 0x28]]);
    let pair = up(link, dir, |_| (), json!({"extended": extended})).await?;
    let wanted: &[&str] = match pair.daemon {
        Daemon::Bird => &["(rt, 64600, 7)", "1290693416"],
        Daemon::Frr => &["RT:64600:7", "LB:64600:125000000"],
        Daemon::GoBgp => &["64600:7"],
        Daemon::OpenBgpd => &["rt 64600:7"],
    };
    pair.learned(V4, wanted).await?;
    Ok(Cell::Works)
}

async fn med(link: &Link, dir: &Path) -> Result<Cell> {
    let pair = up(link, dir, |_| (), json!({"med": 77, "prepend": 2})).await?;
    let wanted: &[&str] = match pair.daemon {
        Daemon::Bird => &["BGP.med: 77", "BGP.as_path: 64600 64600 64600"],
        Daemon::Frr => &["metric 77", "64600 64600 64600"],
        Daemon::GoBgp => &["\"metric\":77", "[64600,64600,64600]"],
        Daemon::OpenBgpd => &["metric 77", "64600 64600 64600"],
    };
    pair.learned(V4, wanted).await?;
    Ok(Cell::Works)
}

async fn many_communities(link: &Link, dir: &Path) -> Result<Cell> {
    let mut pair = pair(link, dir, |_| ()).await?;
    let communities: Vec<(u16, u16)> = (0..500).map(|n| (64_600, n)).collect();
    pair.tell(&json!({"peers": [pair.peer(&json!({}))], "routes": [{"prefix": V4, "communities": communities}]}))?;
    let wanted = match pair.daemon {
        Daemon::Bird => "(64600,499)",
        Daemon::Frr | Daemon::OpenBgpd => "64600:499",
        Daemon::GoBgp => "4233626099",
    };
    pair.learned(V4, &[wanted]).await?;
    ensure!(pair.session()?["flaps"] == 0, "the session fell");
    Ok(Cell::Works)
}

async fn ten_thousand(link: &Link, dir: &Path) -> Result<Cell> {
    let mut pair = pair(link, dir, |_| ()).await?;
    pair.tell(&json!({"peers": [pair.peer(&json!({}))], "bulk": 10_000}))?;
    let (first, last) = ("10.64.0.0/32", "10.64.39.15/32");
    pair.learned(first, &[]).await?;
    pair.learned(last, &[]).await?;
    pair.tell(&json!({"routes": [{"prefix": V4}]}))?;
    pair.learned(V4, &[]).await?;
    pair.forgotten(first).await?;
    pair.forgotten(last).await?;
    ensure!(pair.session()?["flaps"] == 0, "the session fell");
    Ok(Cell::Works)
}

async fn md5(link: &Link, dir: &Path, dials: bool) -> Result<Cell> {
    let mut pair = pair(link, dir, |o| (o.password, o.dials) = (Some("s3cret"), dials)).await?;
    pair.speak(&json!({"password": "another"}))?;
    throughout("no session with the wrong key", Duration::from_secs(3), async || {
        ensure!(pair.session()?["state"] != "Established", "there is one");
        Ok(())
    })
    .await?;
    pair.speak(&json!({}))?;
    pair.established().await?;
    pair.learned(V4, &[]).await?;
    Ok(Cell::Works)
}

async fn refresh(link: &Link, dir: &Path) -> Result<Cell> {
    if daemon(link) == Daemon::GoBgp {
        return Ok(Cell::Lacks("its soft reset uses what it has stored, it never asks"));
    }
    let mut pair = up(link, dir, |_| (), json!({})).await?;
    let before = pair.session()?["sent"][1].as_u64().unwrap_or_default();
    ask_for_refresh(&pair)?;
    pair.wait_for("refreshed", |s| {
        s["received"][4].as_u64().unwrap_or_default() > 0 && s["sent"][1].as_u64().unwrap_or_default() > before
    })
    .await?;
    Ok(Cell::Works)
}

fn ask_for_refresh(pair: &Pair) -> Result<()> {
    let speaker = pair.link.speaker(&pair.options);
    let words = match pair.daemon {
        Daemon::Bird => "reload in spk".to_owned(),
        Daemon::Frr => format!("clear bgp {speaker} soft in"),
        Daemon::GoBgp => format!("neighbor {speaker} softresetin"),
        Daemon::OpenBgpd => format!("neighbor {speaker} refresh"),
    };
    pair.ask(&words).map(drop)
}

async fn enhanced_refresh(link: &Link, dir: &Path) -> Result<Cell> {
    let mut pair = up(link, dir, |_| (), json!({})).await?;
    if pair.session()?["enhancedRefresh"] != true {
        return Ok(Cell::Lacks("it does not send the capability"));
    }
    ask_for_refresh(&pair)?;
    // begin and end of each family
    pair.wait_for("marked", |s| s["sent"][4].as_u64().unwrap_or_default() >= 2).await?;
    ensure!(pair.session()?["flaps"] == 0, "the session fell");
    pair.learned(V4, &[]).await?;
    Ok(Cell::Works)
}

/// A pair with graceful restart, up; `Err`: what the daemon lacks.
async fn graceful(link: &Link, dir: &Path) -> Result<Result<Pair, Cell>> {
    let mut pair = up(link, dir, |o| o.graceful_restart = true, json!({"graceful_restart": true})).await?;
    Ok(match pair.session()?["keepsRoutes"] == true {
        true => Ok(pair),
        false => Err(Cell::Lacks("it does not send the capability")),
    })
}

/// Both routes stay for so long.
async fn kept(pair: &Pair) -> Result<()> {
    throughout("the routes are kept", Duration::from_secs(2), async || {
        pair.route(V4)?;
        pair.route(V6).map(drop)
    })
    .await
}

/// Whether the daemon has a route only because its neighbour may be restarting. BIRD says that of the session alone.
fn is_stale(pair: &Pair, prefix: &str) -> Result<bool> {
    let told = pair.route(prefix)?;
    Ok(match pair.daemon {
        Daemon::Bird => pair.ask("show protocols all spk")?.contains("Neighbor graceful restart active"),
        Daemon::Frr => told.contains("(stale)"),
        Daemon::GoBgp => told.contains("\"stale\":true"),
        Daemon::OpenBgpd => told.contains(", stale,"),
    })
}

/// Both routes are there and become stale, or fresh, and stay so.
async fn kept_as(pair: &Pair, stale: bool) -> Result<()> {
    let are_so = || {
        for prefix in [V4, V6] {
            let is = is_stale(pair, prefix)?;
            ensure!(is == stale, "{prefix}: stale {is}: {:?}", pair.route(prefix));
        }
        Ok(())
    };
    eventually(if stale { "stale" } else { "fresh" }, SESSION_TIME_MAX, async || are_so()).await?;
    throughout("the routes are kept", Duration::from_secs(2), async || are_so()).await
}

/// The speaker is back and its routes are fresh.
async fn back(pair: &mut Pair) -> Result<()> {
    pair.speak(&json!({"graceful_restart": true}))?;
    pair.established().await?;
    kept_as(pair, false).await
}

async fn crash(link: &Link, dir: &Path) -> Result<Cell> {
    let mut pair = match graceful(link, dir).await? {
        Ok(pair) => pair,
        Err(cell) => return Ok(cell),
    };
    kept_as(&pair, false).await?;
    pair.crash();
    kept_as(&pair, true).await?;
    back(&mut pair).await?;
    Ok(Cell::Works)
}

async fn stale(link: &Link, dir: &Path) -> Result<Cell> {
    let mut pair = match graceful(link, dir).await? {
        Ok(pair) => pair,
        Err(cell) => return Ok(cell),
    };
    pair.crash();
    let peer = pair.peer(&json!({"graceful_restart": true}));
    // what was saved, before anything is decided: no End-of-RIB, so that what is not among it stays too
    pair.tell(&json!({"peers": [peer], "routes": [{"prefix": V4}], "provisional": true}))?;
    pair.established().await?;
    kept(&pair).await?;
    pair.tell(&json!({"routes": [{"prefix": V4}]}))?;
    pair.forgotten(V6).await?;
    pair.learned(V4, &[]).await?;
    Ok(Cell::Works)
}

async fn planned_restart(link: &Link, dir: &Path) -> Result<Cell> {
    let mut pair = match graceful(link, dir).await? {
        Ok(pair) => pair,
        Err(cell) => return Ok(cell),
    };
    pair.tell(&json!({"shutdown": "keep"}))?;
    kept_as(&pair, true).await?;
    pair.crash();
    back(&mut pair).await?;
    Ok(Cell::Works)
}

async fn drain(link: &Link, dir: &Path) -> Result<Cell> {
    let mut pair = match graceful(link, dir).await? {
        Ok(pair) => pair,
        Err(cell) => return Ok(cell),
    };
    // A daemon that keeps routes over a NOTIFICATION is told not to.
    let hard = pair.session()?["notificationKeepsRoutes"] == true;
    pair.tell(&json!({"shutdown": "withdraw"}))?;
    pair.forgotten(V4).await?;
    pair.forgotten(V6).await?;
    pair.speaker_says(if hard { "6/9 Hard Reset of 6/2" } else { "6/2 Administrative Shutdown" }).await?;
    Ok(Cell::Works)
}

async fn notification_keeps(link: &Link, dir: &Path) -> Result<Cell> {
    let mut pair = match graceful(link, dir).await? {
        Ok(pair) => pair,
        Err(cell) => return Ok(cell),
    };
    if pair.session()?["notificationKeepsRoutes"] != true {
        return Ok(Cell::Lacks("it does not set the N bit"));
    }
    Ok(Cell::InOpen)
}

async fn graceful_shutdown(link: &Link, dir: &Path) -> Result<Cell> {
    let mut pair = up(link, dir, |_| (), json!({})).await?;
    pair.tell(&json!({"routes": [{"prefix": V4, "draining": true}]}))?;
    let wanted = match pair.daemon {
        Daemon::Bird => "(65535,0)",
        Daemon::Frr => "graceful-shutdown",
        Daemon::GoBgp => "4294901760",
        Daemon::OpenBgpd => "GRACEFUL_SHUTDOWN",
    };
    pair.learned(V4, &[wanted]).await?;
    Ok(Cell::Works)
}

async fn our_last_words(link: &Link, dir: &Path) -> Result<Cell> {
    let mut pair = up(link, dir, |_| (), json!({})).await?;
    pair.tell(&json!({"shutdown": "withdraw"}))?;
    pair.forgotten(V4).await?;
    pause(Duration::from_millis(500)).await;
    let words = "the speaker on node lab is ending";
    let told = pair.router_log()? + &pair.ask(show_session(&pair).as_str()).unwrap_or_default();
    ensure!(told.contains(words), "{} does not show it: {told}", pair.daemon.name());
    Ok(Cell::Works)
}

fn show_session(pair: &Pair) -> String {
    let speaker = pair.link.speaker(&pair.options);
    match pair.daemon {
        Daemon::Bird => "show protocols all spk".to_owned(),
        Daemon::Frr => format!("show bgp neighbors {speaker}"),
        Daemon::GoBgp => format!("neighbor {speaker} -j"),
        Daemon::OpenBgpd => format!("show neighbor {speaker}"),
    }
}

async fn their_last_words(link: &Link, dir: &Path) -> Result<Cell> {
    let pair = up(link, dir, |_| (), json!({})).await?;
    let speaker = pair.link.speaker(&pair.options);
    let words = match pair.daemon {
        Daemon::Bird => "disable spk \"maintenance-42\"".to_owned(),
        Daemon::Frr => {
            let asn = pair.options.router_asn;
            format!("configure terminal;router bgp {asn};neighbor {speaker} shutdown message maintenance-42")
        }
        Daemon::GoBgp => format!("neighbor {speaker} shutdown --reason maintenance-42"),
        Daemon::OpenBgpd => format!("neighbor {speaker} down maintenance-42"),
    };
    pair.ask(&words)?;
    pair.speaker_says("maintenance-42").await?;
    Ok(Cell::Works)
}

async fn extended_next_hop(link: &Link, dir: &Path) -> Result<Cell> {
    let mut pair = pair(link, dir, |o| (o.over_v6, o.extended_next_hop) = (true, true)).await?;
    let own = pair.link.speaker(&pair.options);
    pair.speak(&json!({"next_hop_v4": own}))?;
    let session = pair.established().await?;
    if session["extendedNextHop"] != true {
        return Ok(Cell::Lacks("it does not send the capability"));
    }
    pair.learned(V4, &[&own]).await?;
    pair.tell(&json!({"routes": []}))?;
    pair.forgotten(V4).await?;
    Ok(Cell::Works)
}

async fn unnumbered(link: &Link, dir: &Path) -> Result<Cell> {
    if matches!(daemon(link), Daemon::GoBgp | Daemon::OpenBgpd) {
        return Ok(Cell::Lacks("it needs the neighbour's address"));
    }
    let mut pair = pair(link, dir, |o| (o.unnumbered, o.extended_next_hop) = (true, true)).await?;
    pair.speak(&json!({}))?;
    pair.established().await?;
    pair.learned(V4, &[]).await?;
    pair.learned(V6, &[]).await?;
    Ok(Cell::Works)
}

async fn bfd(link: &Link, dir: &Path) -> Result<Cell> {
    if matches!(daemon(link), Daemon::GoBgp | Daemon::OpenBgpd) {
        return Ok(Cell::Lacks("it has no BFD"));
    }
    let mut pair = up(link, dir, |o| o.bfd = true, json!({"hold_s": 90})).await?;
    pair.wait_for("BFD is up", |s| s["bfd"] == "Up").await?;
    // the router falls silent
    let netns = link.router_netns();
    sh(&format!("ip netns exec {netns} nft add table inet dead"))?;
    let chain = "{ type filter hook output priority 0 ; policy drop ; }";
    let mut words: Vec<&str> = vec!["netns", "exec", &netns, "nft", "add", "chain", "inet", "dead", "out"];
    words.push(chain);
    let dropped = ferrocast_tests::process::run(std::process::Command::new("ip").args(&words));
    let seen = match dropped {
        Ok(_) => {
            pair.wait_for("ended by BFD", |s| s["lastError"].as_str().unwrap_or_default().contains("6/10 BFD Down"))
                .await
        }
        Err(error) => Err(error),
    };
    sh(&format!("ip netns exec {netns} nft delete table inet dead"))?;
    seen?;
    pair.established().await?;
    Ok(Cell::Works)
}

async fn roles(link: &Link, dir: &Path) -> Result<Cell> {
    let role = match daemon(link) {
        Daemon::GoBgp => return Ok(Cell::Lacks("it has no roles")),
        _ => "provider",
    };
    let mut pair = up(link, dir, |o| o.role = Some(role), json!({"role": "customer"})).await?;
    if pair.session()?["role"].is_null() {
        return Ok(Cell::Lacks("it does not send the capability"));
    }
    pair.speak(&json!({"role": "peer"}))?;
    pair.wait_for("refused", |s| s["lastError"].as_str().unwrap_or_default().contains("2/11 Role Mismatch")).await?;
    Ok(Cell::Works)
}
