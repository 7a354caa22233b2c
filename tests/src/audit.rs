//! What the product did at the API server, from the server's own audit log.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::kube::ControlPlane;
use crate::objects::SYSTEM_NAMESPACE;

/// The account that a suite gives the ClusterRole of the same name, for those who run `ferrocast explain`.
pub const EXPLAIN_ACCOUNT: &str = "ferrocast-explain";

/// One request of a ServiceAccount of the product.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// The ServiceAccount's name.
    pub account: String,
    /// `list`, `watch`, `patch` …
    pub verb: String,
    /// `""` for the core group.
    pub group: String,
    /// With its subresource: `services/status`.
    pub resource: String,
    /// Empty for requests about the whole cluster.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// HTTP status.
    pub code: u64,
}

impl Request {
    /// Whether it changed anything, or tried to.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !["get", "list", "watch"].contains(&self.verb.as_str())
    }

    fn read(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let user = text("/user/username");
        let account = user.strip_prefix(&format!("system:serviceaccount:{SYSTEM_NAMESPACE}:"))?.to_owned();
        let resource = match text("/objectRef/subresource") {
            part if part.is_empty() => text("/objectRef/resource"),
            part => format!("{}/{part}", text("/objectRef/resource")),
        };
        Some(Self {
            account,
            verb: text("/verb"),
            group: text("/objectRef/apiGroup"),
            resource,
            namespace: text("/objectRef/namespace"),
            name: text("/objectRef/name"),
            code: event.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or_default(),
        })
    }
}

/// Every request of the product so far. One that was begun and not answered yet is not in it, but for watches.
///
/// # Errors
/// When the log cannot be read.
pub fn requests(plane: &ControlPlane) -> Result<Vec<Request>> {
    let text = fs::read_to_string(plane.audit_log()).context("the audit log")?;
    Ok(text.lines().filter_map(Request::read).collect())
}

/// The requests as rights: account, namespace, group, resource, verb.
pub type Right = (String, String, String, String, String);

/// The rights that these requests needed.
#[must_use]
pub fn rights(requests: &[Request]) -> BTreeSet<Right> {
    let right = |request: &Request| {
        let Request { account, verb, group, resource, namespace, .. } = request.clone();
        // A right in a ClusterRole is meant for all namespaces; which one a Service's status is in does not matter, nor where the
        // objects are that `explain` reads.
        let everywhere = ["services/status", "events", "namespaces"].contains(&resource.as_str());
        let namespace = if everywhere || account == EXPLAIN_ACCOUNT { String::new() } else { namespace };
        (account, namespace, group, resource, verb)
    };
    requests.iter().filter(|request| !request.resource.is_empty()).map(right).collect()
}
