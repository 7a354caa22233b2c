//! Address allocation as a pure state machine: changes in, outcomes out.
use std::{net::IpAddr, sync::Arc};

use crate::{
    config::Config,
    model::{Labels, Service, ServiceKey},
};

/// Severity of a Kubernetes Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteType {
    /// `Normal`.
    Normal,
    /// `Warning`.
    Warning,
}

/// Something the Service's owner should be told, as an Event with MetalLB's reason and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Normal or Warning.
    pub kind: NoteType,
    /// Event reason, e.g. `AllocationFailed`.
    pub reason: &'static str,
    /// Event text.
    pub message: String,
}

/// What one Service should have in its status, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Addresses, IPv4 before IPv6. The status should hold exactly these.
    pub ips: Vec<IpAddr>,
    /// The pool they come from, for the annotation `metallb.io/ip-allocated-from-pool`; `None`: the annotation should be absent.
    pub pool: Option<Arc<str>>,
    /// Why, as a stable code: `allocated`, `waiting` …
    pub code: &'static str,
    /// Standing messages: each is sent once when it appears or its text changes (`AllocationFailed`, `ClearAssignment` …).
    /// `IPAllocated` is not among them: it follows from the change of `ips`, once that has been written.
    pub notes: Vec<Note>,
}

/// One change of what the allocator looks at.
#[derive(Clone, Debug)]
pub enum Change {
    /// A Service as it is now; `None`: it is gone.
    Service(ServiceKey, Option<Arc<Service>>),
    /// The configuration in force.
    Config(Arc<Config>),
    /// A Namespace's labels; `None`: it is gone.
    Namespace(Arc<str>, Option<Arc<Labels>>),
}

/// A Service's outcome that differs from the last one reported. `None`: it is not ours any more (or gone): nothing should be
/// written, except that an annotation of ours is to be removed while the object exists.
pub type Effect = (ServiceKey, Option<Arc<Outcome>>);

/// Who holds which address.
#[derive(Debug)]
pub struct Allocator {
    class: Option<Arc<str>>,
}

impl Allocator {
    /// An allocator that serves Services of `class` (`None`: those without a class).
    #[must_use]
    pub fn new(class: Option<Arc<str>>) -> Self {
        Self { class }
    }

    /// Takes in a batch of changes and returns what follows, each Service at most once, in key order.
    ///
    /// Within a batch, Services that hold an address keep it before any other Service is given one, whatever the order; so
    /// the first batch after a start may hold everything. Costs what changed, not what exists, except for
    /// [`Change::Config`], which looks at every Service.
    #[must_use]
    pub fn apply(&mut self, changes: Vec<Change>) -> Vec<Effect> {
        let _ = (&self.class, changes);
        Vec::new()
    }
}
