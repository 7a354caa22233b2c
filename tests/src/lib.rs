//! The test bed: a real API server, real routers, real kube-proxies and the real `ferrocast` binary, on one machine.
//!
//! A suite ([`runner`]) moves itself into fresh mount, network and process namespaces before it does anything, so the
//! host's own namespaces are never touched and nothing is left behind, however a run ends. In there, [`kube`] starts
//! etcd and kube-apiserver, [`lab`] lays the network, [`router`] runs BIRD and FRR, [`ferrocast`] the product.
//! Commands, addresses and files are the harness's own: a failure of any of them fails the test with its output.
#![allow(clippy::disallowed_methods, reason = "tests read the clock and own their tasks; the product does not")]

pub mod audit;
pub mod cluster;
pub mod document;
pub mod ferrocast;
pub mod held;
pub mod interop;
pub mod kube;
pub mod lab;
pub mod objects;
pub mod process;
pub mod router;
pub mod runner;
pub mod sink;
pub mod wait;
