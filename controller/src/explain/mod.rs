//! `ferrocast explain`: why a Service, an address, a node or a peer is as it is.
//!
//! An [`Explanation`] says it, whoever fills it: [`from_plan`] from manifests; from a live cluster every speaker and the controller
//! fill in what they know ([`of_speaker`], [`of_controller`]) and serve it to who may know ([`serve`]); the command asks them all.
mod asker;
pub mod from_plan;
mod live;
pub mod of_controller;
pub mod of_speaker;
mod render;
pub mod serve;
mod told;

use std::{
    io::{self, BufWriter, Write as _},
    net::IpAddr,
    process::ExitCode,
    str::FromStr,
};

use ferrocast_core::model::ServiceKey;
use serde::{Deserialize, Serialize};

use crate::{
    cli::{ExplainArgs, PlanOutput},
    plan::{self, world::Settings},
};

/// What is to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A Service.
    Service(ServiceKey),
    /// An address, whoever has it.
    Address(IpAddr),
    /// A node.
    Node(String),
    /// A BGPPeer.
    Peer(String),
}

impl Subject {
    /// The subject of this kind and name.
    ///
    /// # Errors
    /// In words, if there can be none of that name.
    pub fn new(kind: SubjectKind, name: &str) -> Result<Self, String> {
        match kind {
            SubjectKind::Service => ServiceKey::from_str(name).map(Self::Service),
            SubjectKind::Address => {
                name.parse().map(Self::Address).map_err(|_| format!("{name:?} is not an IP address"))
            }
            SubjectKind::Node => Ok(Self::Node(name.to_owned())),
            SubjectKind::Peer => Ok(Self::Peer(name.to_owned())),
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(key) => write!(f, "service {key}"),
            Self::Address(ip) => write!(f, "address {ip}"),
            Self::Node(name) => write!(f, "node {name}"),
            Self::Peer(name) => write!(f, "peer {name}"),
        }
    }
}

/// Kinds of subjects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectKind {
    /// A Service, as NAMESPACE/NAME.
    Service,
    /// An IP address.
    Address,
    /// A node.
    Node,
    /// A BGPPeer.
    Peer,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Explanation {
    /// What was asked, e.g. `service default/web`.
    pub subject: String,
    /// What is known of the subject itself, the most important first.
    pub facts: Vec<Fact>,
    /// The Services that it is about.
    pub services: Vec<ServiceExplained>,
    /// The sessions that it is about.
    pub sessions: Vec<SessionExplained>,
    /// Configuration objects that are not in force as written.
    pub configuration: Vec<Fact>,
    /// Of a live cluster: who was asked and has not answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unanswered: Vec<Fact>,
}

/// A code with words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Fact {
    /// Stable.
    pub code: String,
    /// For people.
    pub message: String,
}

impl Fact {
    /// A fact.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }
}

/// Why a Service has its addresses, and where they are announced.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct ServiceExplained {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it has.
    pub addresses: Vec<IpAddr>,
    /// Those that it holds though the right to them was taken away.
    pub held: Vec<IpAddr>,
    /// The pool of the first.
    pub pool: Option<String>,
    /// Why, as the allocation decided.
    pub reason: Fact,
    /// Every pool that was considered, in the order in which they are tried.
    pub pools: Vec<PoolExplained>,
    /// The decision of every node on every address.
    pub nodes: Vec<NodeExplained>,
}

/// A pool as it looks to a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct PoolExplained {
    /// Its name.
    pub pool: String,
    /// Why it gave an address or not.
    pub reason: Fact,
}

/// What a node does with an address.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct NodeExplained {
    /// The node.
    pub node: String,
    /// The announcer: `bgp`, or the name of an AnnouncerClass.
    pub announcer: String,
    /// The address.
    pub address: Option<IpAddr>,
    /// It announces it.
    pub announce: bool,
    /// Why or why not.
    pub reason: Fact,
    /// Since when, RFC 3339; `None`: it cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// What becomes of it at each peer.
    pub peers: Vec<PeerExplained>,
}

/// What a peer, or a target of another announcer, is sent of an address.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct PeerExplained {
    /// The peer or target.
    pub peer: String,
    /// It is to be sent the route.
    pub desired: bool,
    /// It has been sent it; `None`: there is no live speaker to ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<bool>,
    /// State of the session; `None`: there is no live speaker to ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Why or why not.
    pub reason: Fact,
}

/// One session.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct SessionExplained {
    /// The node.
    pub node: String,
    /// The peer.
    pub peer: String,
    /// There is to be one.
    pub desired: bool,
    /// Its state; `None`: there is no live speaker to ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Routes that the peer is to be sent.
    pub routes: usize,
    /// Routes that it has been sent; `None`: there is no live speaker to ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<usize>,
    /// Why or why not.
    pub reason: Fact,
}

/// Runs the command.
///
/// # Errors
/// Wrong arguments, manifests that cannot be read, or a cluster of which nothing answers.
pub async fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let subject = Subject::new(args.kind, &args.name).map_err(anyhow::Error::msg)?;
    let explanation = match &args.from {
        Some(from) => {
            let settings = Settings {
                class: args.load_balancer_class.clone(),
                ignore_exclude_label: args.ignore_exclude_lb,
                nodes: args.nodes,
                assume_endpoints: args.assume_endpoints,
            };
            let objects = plan::objects_of(std::slice::from_ref(from), &args.namespace)?;
            from_plan::explain(&subject, &objects, settings)
        }
        None => live::explain(&subject, &args).await?,
    };
    print(&explanation, args.output)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints an explanation.
///
/// # Errors
/// If standard output is closed.
pub fn print(explanation: &Explanation, output: PlanOutput) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match output {
        PlanOutput::Text => render::text(explanation, &mut out)?,
        PlanOutput::Json => {
            serde_json::to_writer(&mut out, explanation).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    out.flush()
}
