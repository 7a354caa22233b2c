//! The configuration of each daemon for one session with the speaker.

use super::{Daemon, Link};

/// Appends a formatted line.
macro_rules! line {
    ($to:expr, $($words:tt)*) => { $to.push_str(&(format!($($words)*) + "\n")) };
}

/// What a session is to be like, as the router is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The session runs over IPv6.
    pub over_v6: bool,
    /// AS of the router.
    pub router_asn: u32,
    /// AS that the router expects of the speaker.
    pub speaker_asn: u32,
    /// The router dials; otherwise it only listens.
    pub dials: bool,
    /// TCP-MD5 password.
    pub password: Option<&'static str>,
    /// GTSM with one hop.
    pub gtsm: bool,
    /// Between loopback addresses, two hops.
    pub multihop: bool,
    /// The router announces that it restarts gracefully, not only that it helps others to.
    pub graceful_restart: bool,
    /// IPv4 routes with IPv6 next hops.
    pub extended_next_hop: bool,
    /// BFD, 3 × 100 ms.
    pub bfd: bool,
    /// The router's role.
    pub role: Option<&'static str>,
    /// No addresses: the peer is found on the interface.
    pub unnumbered: bool,
    /// Both families, or that of the transport alone.
    pub both_families: bool,
}

impl Options {
    /// An external session over IPv4 with both families; the router listens.
    #[must_use]
    pub fn new(daemon: Daemon) -> Self {
        Self {
            over_v6: false,
            router_asn: daemon.asn(),
            speaker_asn: 64_600,
            dials: false,
            password: None,
            gtsm: false,
            multihop: false,
            graceful_restart: false,
            extended_next_hop: false,
            bfd: false,
            role: None,
            unnumbered: false,
            both_families: true,
        }
    }

    fn families(&self) -> &'static [&'static str] {
        match (self.both_families, self.over_v6) {
            (true, _) => &["ipv4", "ipv6"],
            (false, false) => &["ipv4"],
            (false, true) => &["ipv6"],
        }
    }
}

/// The text of the daemon's configuration file.
#[must_use]
pub fn text(daemon: Daemon, link: &Link, options: &Options) -> String {
    match daemon {
        Daemon::Bird => bird(link, options),
        Daemon::Frr => frr(link, options),
        Daemon::GoBgp => gobgp(link, options),
        Daemon::OpenBgpd => openbgpd(link, options),
    }
}

fn bird(link: &Link, options: &Options) -> String {
    let mut text = format!("log stderr all;\nrouter id {};\nprotocol device {{}}\n", link.router_id());
    if options.bfd {
        let timers = "min rx interval 100 ms; min tx interval 100 ms; multiplier 3;";
        line!(text, "protocol bfd {{ interface \"eth0\" {{ {timers} }}; }}");
    }
    let (router, speaker) = (link.router(options), link.speaker(options));
    let mut session = String::new();
    if options.unnumbered {
        text.push_str(
            "protocol radv { interface \"eth0\" { min ra interval 3; max ra interval 4; default lifetime 0; }; }\n",
        );
        line!(session, "local as {};\nneighbor {speaker}%eth0 as {};", options.router_asn, options.speaker_asn);
    } else {
        line!(session, "local {router} as {};\nneighbor {speaker} as {};", options.router_asn, options.speaker_asn);
    }
    session.push_str(if options.dials {
        "connect delay time 1; connect retry time 1; error wait time 1,2;\n"
    } else {
        "passive yes; error wait time 1,2;\n"
    });
    if let Some(password) = options.password {
        line!(session, "password \"{password}\";");
    }
    if options.gtsm {
        session.push_str("ttl security on;\n");
    }
    if options.multihop {
        session.push_str("multihop 2;\n");
    }
    session.push_str(if options.graceful_restart { "graceful restart on;\n" } else { "graceful restart aware;\n" });
    if options.bfd {
        session.push_str("bfd on;\n");
    }
    if let Some(role) = options.role {
        line!(session, "local role {role};");
    }
    for family in options.families() {
        let extended = if options.extended_next_hop && *family == "ipv4" { "extended next hop yes;" } else { "" };
        line!(session, "{family} {{ import all; export none; {extended} }};");
    }
    line!(text, "protocol bgp spk {{\n{session}}}");
    text
}

const FRR_HEAD: &str = "frr version 8.4\nfrr defaults datacenter\nhostname frr\nlog stdout informational\n!\n";

/// What FRR's daemons other than bgpd read.
#[must_use]
pub fn beside_bgpd(name: &str, options: &Options) -> String {
    let own = match name {
        "zebra" if options.unnumbered => "interface eth0\n no ipv6 nd suppress-ra\n ipv6 nd ra-interval 2\n!\n",
        "bfdd" => {
            "bfd\n profile fast\n  receive-interval 100\n  transmit-interval 100\n  detect-multiplier 3\n exit\nexit\n!\n"
        }
        _ => "",
    };
    format!("{FRR_HEAD}{own}")
}

fn frr(link: &Link, options: &Options) -> String {
    let mut text = FRR_HEAD.to_owned();
    let speaker = if options.unnumbered { "eth0".to_owned() } else { link.speaker(options) };
    let interface = if options.unnumbered { "interface " } else { "" };
    line!(
        text,
        "router bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
         no bgp default ipv4-unicast\n neighbor {speaker} {interface}remote-as {}\n neighbor {speaker} timers 3 9\n \
         neighbor {speaker} timers connect 1",
        options.router_asn,
        link.router_id(),
        options.speaker_asn
    );
    let mut say = |words: &str| {
        line!(text, " neighbor {speaker} {words}");
    };
    if !options.dials && !options.unnumbered {
        say("passive");
    }
    if let Some(password) = options.password {
        say(&format!("password {password}"));
    }
    if options.gtsm {
        say("ttl-security hops 1");
    }
    if options.multihop {
        say("ebgp-multihop 2");
        say(&format!("update-source {}", link.router(options)));
    }
    if options.graceful_restart {
        say("graceful-restart");
    }
    if options.extended_next_hop {
        say("capability extended-nexthop");
    }
    if options.bfd {
        say("bfd");
        say("bfd profile fast");
    }
    if let Some(role) = options.role {
        say(&format!("local-role {role}"));
    }
    for family in options.families() {
        line!(text, " address-family {family} unicast\n  neighbor {speaker} activate\n exit-address-family");
    }
    text.push_str("!\n");
    text
}

fn gobgp(link: &Link, options: &Options) -> String {
    let (router, speaker) = (link.router(options), link.speaker(options));
    let mut text = format!(
        "[global.config]\n  as = {}\n  router-id = \"{}\"\n  port = 179\n[[neighbors]]\n  [neighbors.config]\n    \
         neighbor-address = \"{speaker}\"\n    peer-as = {}\n",
        options.router_asn,
        link.router_id(),
        options.speaker_asn
    );
    if let Some(password) = options.password {
        line!(text, "    auth-password = \"{password}\"");
    }
    line!(
        text,
        "  [neighbors.transport.config]\n    passive-mode = {}\n    local-address = \"{router}\"\n  \
         [neighbors.timers.config]\n    connect-retry = 1\n    hold-time = 9\n    keepalive-interval = 3",
        !options.dials
    );
    if options.gtsm {
        text.push_str("  [neighbors.ttl-security.config]\n    enabled = true\n    ttl-min = 255\n");
    }
    if options.multihop {
        text.push_str("  [neighbors.ebgp-multihop.config]\n    enabled = true\n    multihop-ttl = 2\n");
    }
    if options.graceful_restart {
        text.push_str(
            "  [neighbors.graceful-restart.config]\n    enabled = true\n    notification-enabled = true\n    restart-time = 60\n",
        );
    }
    for family in options.families() {
        line!(
            text,
            "  [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      afi-safi-name = \"{family}-unicast\""
        );
        if options.graceful_restart {
            text.push_str("    [neighbors.afi-safis.mp-graceful-restart.config]\n      enabled = true\n");
        }
    }
    text
}

fn openbgpd(link: &Link, options: &Options) -> String {
    let (router, speaker) = (link.router(options), link.speaker(options));
    let mut session = format!("\tremote-as {}\n", options.speaker_asn);
    if options.dials || options.multihop {
        line!(session, "\tlocal-address {router}");
    }
    if !options.dials {
        session.push_str("\tpassive\n");
    }
    if let Some(password) = options.password {
        line!(session, "\ttcp md5sig password {password}");
    }
    if options.gtsm {
        session.push_str("\tttl-security yes\n");
    }
    if options.multihop {
        session.push_str("\tmultihop 2\n");
    }
    if let Some(role) = options.role {
        line!(session, "\tannounce policy {role}");
    }
    for family in options.families() {
        line!(session, "\tannounce {} unicast", if *family == "ipv4" { "IPv4" } else { "IPv6" });
    }
    format!(
        "AS {}\nrouter-id {}\nfib-update no\nholdtime 9\nconnect-retry 1\nlisten on {router}\nsocket \"{}\"\n\
         neighbor {speaker} {{\n{session}}}\nallow from any\ndeny to any\n",
        options.router_asn,
        link.router_id(),
        link.openbgpd_socket()
    )
}
