//! `SpeakerStatus` (`ferrocast.io`).
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// Nothing is configured here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "ferrocast.io",
    version = "v1alpha1",
    kind = "SpeakerStatus",
    plural = "speakerstatuses",
    namespaced,
    status = "SpeakerStatusStatus",
    derive = "PartialEq",
    doc = "SpeakerStatus is what the speaker of one node, which has the same name, says of itself: its sessions, what it announces, and what is wrong. Written by the speaker when something changes, at most every 5 s; removed with the Node.",
    printcolumn(name = "Peers", type_ = "string", json_path = ".status.peersUp"),
    printcolumn(name = "Announced", type_ = "integer", json_path = ".status.announced"),
    printcolumn(name = "Drained", type_ = "boolean", json_path = ".status.drained"),
    printcolumn(name = "Problem", type_ = "string", json_path = ".status.problem"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct SpeakerStatusSpec {}

/// What a speaker says of itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerStatusStatus {
    /// Version of the speaker.
    pub version: String,
    /// Established sessions and all peers of this node: 2/3.
    pub peers_up: String,
    /// Prefixes that this node announces to any peer.
    pub announced: i64,
    /// Number of the set of prefixes announced now; grows with every change, and begins again with the speaker.
    pub generation: i64,
    /// The node was drained by command: everything is announced as about to go away.
    pub drained: bool,
    /// Where the speaker answers ferrocast explain: address and port; absent if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explain: Option<String>,
    /// The first of problems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What is wrong, in words: configuration that is not in force as written, peers without a session. The first 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// One entry per BGPPeer that selects this node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub peers: Vec<SpeakerPeer>,
    /// One entry per AnnouncerClass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub announcers: Vec<SpeakerAnnouncer>,
}

/// An announcer besides BGP.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerAnnouncer {
    /// Name of the AnnouncerClass.
    pub name: String,
    /// How it stands. connected: its plugin is there and talks; inProcess: it is a part of the speaker. Otherwise what keeps it: connecting,
    /// missing, refused, stalled, lost, faulty, stopped, disabled (the speaker has no --plugin-dir).
    pub state: String,
    /// Since when it is in this state (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why it does not work, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What its plugin calls its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The number of the protocol that is spoken with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<i64>,
    /// Prefixes that this node wants announced by it.
    pub announced: i64,
    /// Number of that set.
    pub generation: i64,
    /// Number of the set that it has accepted last.
    pub accepted: i64,
    /// Number of the set that all its targets have reached.
    pub reached: i64,
    /// Targets that take announcements now.
    pub targets_up: i64,
    /// Targets that it knows.
    pub targets: i64,
    /// Announcements that a target cannot be given, with the reason of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Of what its plugin sends more, or longer, than the protocol allows since it is connected: status, target, failure, text. The
    /// rest is dropped, and counted by the metric ferrocast_plugin_dropped_total.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excess: Option<String>,
}

/// The session with one peer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpeakerPeer {
    /// Name of the BGPPeer.
    pub name: String,
    /// Address of the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// AS number of the peer: agreed, else as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<i64>,
    /// Established; Connecting while the peer is dialled or waited for; Idle if it is not.
    #[schemars(extend("enum" = ["Established", "Connecting", "Idle"]))]
    pub state: String,
    /// Since when it is in this state (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why the last session or attempt ended, or why none is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Address families of the session: IPv4, IPv6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub families: Vec<String>,
    /// Prefixes that the peer has from this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<AnnouncedPrefixes>,
    /// The peer keeps our routes while the speaker restarts (agreed when the session opened).
    pub graceful_restart: bool,
    /// The BFD session beside the BGP session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<SpeakerBfd>,
    /// How often an established session was lost since the speaker's start.
    pub flaps: i64,
}

/// Prefixes by family.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
pub struct AnnouncedPrefixes {
    /// IPv4 prefixes.
    #[serde(rename = "IPv4")]
    pub ipv4: i64,
    /// IPv6 prefixes.
    #[serde(rename = "IPv6")]
    pub ipv6: i64,
}

/// A BFD session.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, KubeSchema)]
pub struct SpeakerBfd {
    /// Name of the BFDProfile.
    pub profile: String,
    /// Up, Down, Init or AdminDown; absent while nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}
