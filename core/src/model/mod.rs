//! Digests of cluster objects: exactly the fields that decisions need, nothing of what the API server stores beside them.
//!
//! Ten thousand Services stay below a few megabytes this way. Two digests that compare equal lead to equal decisions, so a
//! watcher can drop a change that alters none of them.

mod endpoints;
mod key;
mod node;
mod selector;
mod service;

pub use endpoints::{EndpointDigest, EndpointsIndex, NodeId, SliceDigest};
pub use key::{ObjectKey, ServiceKey};
pub use node::{BGP_SOURCES_ANNOTATION, EXCLUDE_LABEL, Node};
pub use selector::{LabelSelector, Labels, Operator, Requirement, SelectorError};
pub use service::{
    AnnotationText, Endpoints, FamilyPolicy, IpFamily, Port, Protocol, Service, ServiceAnnotations, ServiceCondition,
    TrafficPolicy,
};
