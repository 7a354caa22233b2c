//! Explanations for people.
use std::io::{self, Write};

use ferrocast_core::config::BGP;

use super::{Explanation, Fact, NodeExplained, PeerExplained, ServiceExplained};

/// Writes an explanation as text.
pub(super) fn text(explanation: &Explanation, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", explanation.subject)?;
    for fact in &explanation.facts {
        writeln!(out, "  {}", line(fact))?;
    }
    for service in &explanation.services {
        write_service(service, out)?;
    }
    if !explanation.sessions.is_empty() {
        writeln!(out, "Sessions")?;
    }
    for session in &explanation.sessions {
        let state = session.session.as_ref().map(|state| format!(" [{state}]")).unwrap_or_default();
        let routes = match (session.desired, session.sent) {
            (false, _) => String::new(),
            (true, None) => format!(", {} routes", session.routes),
            (true, Some(sent)) => format!(", {sent} of {} routes sent", session.routes),
        };
        writeln!(out, "  {} with {}{state}{routes}: {}", session.node, session.peer, line(&session.reason))?;
    }
    if !explanation.configuration.is_empty() {
        writeln!(out, "Configuration that is not in force as written")?;
    }
    for fact in &explanation.configuration {
        writeln!(out, "  {}", line(fact))?;
    }
    if !explanation.unanswered.is_empty() {
        writeln!(out, "Not answered")?;
    }
    for fact in &explanation.unanswered {
        writeln!(out, "  {}", line(fact))?;
    }
    Ok(())
}

fn line(fact: &Fact) -> String {
    if fact.message.is_empty() { fact.code.clone() } else { format!("{}: {}", fact.code, fact.message) }
}

fn write_service(service: &ServiceExplained, out: &mut impl Write) -> io::Result<()> {
    let addresses: Vec<String> = service.addresses.iter().map(ToString::to_string).collect();
    let addresses = if addresses.is_empty() { "no address".to_owned() } else { addresses.join(", ") };
    let pool = service.pool.as_ref().map(|pool| format!(" of pool {pool}")).unwrap_or_default();
    writeln!(out, "Service {}/{}: {addresses}{pool}", service.namespace, service.name)?;
    writeln!(out, "  {}", line(&service.reason))?;
    if !service.pools.is_empty() {
        writeln!(out, "  Pools, in the order in which they are tried")?;
    }
    for pool in &service.pools {
        writeln!(out, "    {}  {}", pool.pool, line(&pool.reason))?;
    }
    if !service.nodes.is_empty() {
        writeln!(out, "  Nodes")?;
    }
    for node in &service.nodes {
        write_node(node, out)?;
    }
    Ok(())
}

fn write_node(node: &NodeExplained, out: &mut impl Write) -> io::Result<()> {
    let address = node.address.map(|ip| format!(" {ip}")).unwrap_or_default();
    let since = node.since.as_ref().map(|since| format!(" (since {since})")).unwrap_or_default();
    let announcer = match &*node.announcer {
        "" | BGP => String::new(),
        other => format!(" by {other}"),
    };
    writeln!(out, "    {}{address}{announcer}  {}{since}", node.node, line(&node.reason))?;
    for peer in &node.peers {
        writeln!(out, "      {}", peer_line(peer))?;
    }
    Ok(())
}

fn peer_line(peer: &PeerExplained) -> String {
    let sent = match peer.sent {
        Some(true) => ", has been sent it",
        Some(false) => ", has not been sent it",
        None => "",
    };
    let state = peer.session.as_ref().map(|state| format!(" [{state}]")).unwrap_or_default();
    format!("{}{state}: {}{sent}", peer.peer, line(&peer.reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::{PoolExplained, SessionExplained};

    #[test]
    fn explanation_reads_from_top_to_bottom() {
        let peer = PeerExplained {
            peer: "r1".into(),
            desired: true,
            sent: Some(true),
            session: Some("Established".into()),
            reason: Fact::new("sent", "by BGPAdvertisement \"a\""),
        };
        let node = NodeExplained {
            node: "n1".into(),
            announcer: BGP.into(),
            address: Some("192.0.2.1".parse().unwrap()),
            announce: true,
            reason: Fact::new("announced", "1 serving endpoint"),
            since: Some("2026-01-01T00:00:00Z".into()),
            peers: vec![peer],
        };
        let other = NodeExplained { announcer: "ospf".into(), since: None, peers: vec![], ..node.clone() };
        let service = ServiceExplained {
            namespace: "d".into(),
            name: "web".into(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            pool: Some("p".into()),
            reason: Fact::new("allocated", ""),
            pools: vec![PoolExplained { pool: "p".into(), reason: Fact::new("allocated", "the lowest free address") }],
            nodes: vec![node, other],
            ..ServiceExplained::default()
        };
        let session = SessionExplained {
            node: "n1".into(),
            peer: "r1".into(),
            desired: true,
            routes: 3,
            reason: Fact::new("wanted", "x"),
            ..SessionExplained::default()
        };
        let explanation = Explanation {
            subject: "service d/web".into(),
            facts: vec![Fact::new("allocated", "")],
            services: vec![service],
            sessions: vec![session],
            configuration: vec![Fact::new("invalid", "IPAddressPool q")],
            unanswered: vec![Fact::new("notReached", "the speaker of n2")],
        };
        let mut out = Vec::new();
        text(&explanation, &mut out).unwrap();
        let want = "service d/web
  allocated
Service d/web: 192.0.2.1 of pool p
  allocated
  Pools, in the order in which they are tried
    p  allocated: the lowest free address
  Nodes
    n1 192.0.2.1  announced: 1 serving endpoint (since 2026-01-01T00:00:00Z)
      r1 [Established]: sent: by BGPAdvertisement \"a\", has been sent it
    n1 192.0.2.1 by ospf  announced: 1 serving endpoint
Sessions
  n1 with r1, 3 routes: wanted: x
Configuration that is not in force as written
  invalid: IPAddressPool q
Not answered
  notReached: the speaker of n2
";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }
}
