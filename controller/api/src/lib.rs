//! Custom resource types, and the CRDs generated from them.
//!
//! `metallb.io` is MetalLB's group, field for field, so that existing manifests apply unchanged. What MetalLB cannot say is in
//! `ferrocast.io`. The types serve the schema
//! and decoding; what the fields may hold is checked in `ferrocast-core`.
#![forbid(unsafe_code)]
#![allow(clippy::duplicated_attributes, reason = "each printcolumn has its own json_path")]
#![allow(unreachable_pub, reason = "the KubeSchema derive repeats each type where nothing can reach it")]

mod advertisement;
mod announcer;
mod community;
mod crds;
mod peer;
mod policy;
mod pool;
mod pools;
mod selector;
mod speaker;
mod status;

pub use advertisement::{
    BGPAdvertisement, BGPAdvertisementSpec, L2Advertisement, L2AdvertisementSpec, PreferredNodeSelector,
};
pub use announcer::{
    Advertisement, AdvertisementSpec, AnnouncerCapabilities, AnnouncerClass, AnnouncerClassSpec, ProtocolRange,
};
pub use community::{BFDProfile, BFDProfileSpec, Community, CommunityAlias, CommunitySpec};
pub use crds::{crds, crds_yaml_documents};
pub use peer::{BGPPeer, BGPPeerSpec, EmptyStatus, SecretReference, v1beta1};
pub use policy::{
    BGPPeerPolicy, BGPPeerPolicySpec, KeySecret, LinkBandwidth, RoutesPolicy, SessionPolicy, TcpAo, TcpAoKey,
};
pub use pool::{IPAddressPool, IPAddressPoolSpec, IPAddressPoolStatus, ServiceAllocation};
pub use pools::{
    AddressRelease, AddressReservation, AddressReservationSpec, AddressReservationStatus, PoolPolicy, PoolPolicySpec,
    PoolPolicyStatus, PoolQuota, PoolSharing, ReservationHolder, ReservedFor, ServiceReference,
};
pub use selector::{LabelSelector, LabelSelectorRequirement};
pub use speaker::{
    AnnouncedPrefixes, SpeakerAnnouncer, SpeakerBfd, SpeakerPeer, SpeakerStatus, SpeakerStatusSpec, SpeakerStatusStatus,
};
pub use status::{
    ConfigurationState, ConfigurationStateSpec, ConfigurationStateStatus, InterfaceInfo, ServiceBGPStatus,
    ServiceBGPStatusSpec, ServiceBGPStatusStatus, ServiceL2Status, ServiceL2StatusSpec, ServiceL2StatusStatus,
    StateCondition,
};

/// The API group of MetalLB's resources.
pub const GROUP: &str = "metallb.io";
/// The API group of what MetalLB's resources cannot say.
pub const OWN_GROUP: &str = "ferrocast.io";
