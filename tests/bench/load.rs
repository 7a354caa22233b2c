//! The Services and EndpointSlices of the benchmarks, created, filled and emptied in bulk.

use std::future::Future;
use std::net::Ipv4Addr;
use std::ops::Range;

use anyhow::{Context as _, Result};
use ferrocast_tests::objects::{self, Endpoint};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// `spec.loadBalancerClass` of every Service here: of the floor and of Ferrocast, which never run at the same time.
pub(crate) const CLASS: &str = "ferrocast.io/bench";
/// The namespace of the Services.
pub(crate) const NAMESPACE: &str = "bench";
/// The pool of all addresses.
pub(crate) const POOL: &str = "bench";
/// What is in the pool: room for everything that stands and is measured.
pub(crate) const POOL_RANGE: &str = "10.32.0.0/16";
/// The node that has every endpoint.
pub(crate) const NODE: &str = "bench-node";

/// Addresses given by hand start at the pool's end, so that they lie apart from those that Ferrocast gives.
const STANDING_ADDRESS_LAST: Ipv4Addr = Ipv4Addr::new(10, 32, 255, 255);
/// The annotation by which Ferrocast knows the pool of an address.
const POOL_ANNOTATION: &str = "metallb.io/ip-allocated-from-pool";
/// Requests under way at once when many objects are written.
const IN_FLIGHT: usize = 12;
/// The address of every endpoint; nothing is ever sent to it.
const ENDPOINT_ADDRESS: &str = "10.244.0.1";

/// Services named by a prefix and a number, with one EndpointSlice each.
#[derive(Clone)]
pub(crate) struct Load {
    services: Api<Service>,
    slices: Api<EndpointSlice>,
    prefix: &'static str,
}

/// Does something for every number, several at once.
async fn each<F: Future<Output = Result<()>>>(range: Range<usize>, work: impl FnMut(usize) -> F) -> Result<()> {
    futures::stream::iter(range).map(work).buffer_unordered(IN_FLIGHT).try_collect().await
}

/// The address that the standing Service of this number holds.
fn standing_address(number: usize) -> Ipv4Addr {
    let below = u32::try_from(number).unwrap_or(u32::MAX);
    Ipv4Addr::from(u32::from(STANDING_ADDRESS_LAST).saturating_sub(below))
}

impl Load {
    /// Services whose names begin with `prefix`.
    #[must_use]
    pub(crate) fn new(client: &Client, prefix: &'static str) -> Self {
        let services = Api::namespaced(client.clone(), NAMESPACE);
        let slices = Api::namespaced(client.clone(), NAMESPACE);
        Self { services, slices, prefix }
    }

    /// The name of a Service.
    #[must_use]
    pub(crate) fn name(&self, number: usize) -> String {
        format!("{}-{number:05}", self.prefix)
    }

    /// The Service of this number, ready to be created.
    ///
    /// # Errors
    /// Never, unless the harness' Service is none.
    pub(crate) fn service(&self, number: usize) -> Result<Service> {
        let name = self.name(number);
        let service = objects::Service { namespace: NAMESPACE, ..objects::Service::named(&name).of_class(CLASS) };
        Ok(serde_json::from_value(service.object())?)
    }

    /// Creates the EndpointSlices of these numbers.
    ///
    /// # Errors
    /// What the API server refuses.
    pub(crate) async fn create_slices(&self, range: Range<usize>) -> Result<()> {
        each(range, async |number| {
            let endpoints = [Endpoint::ready(ENDPOINT_ADDRESS, NODE)];
            let slice = objects::endpoint_slice(NAMESPACE, &self.name(number), "IPv4", &endpoints);
            self.slices.create(&PostParams::default(), &serde_json::from_value(slice)?).await?;
            Ok(())
        })
        .await
        .context("creating EndpointSlices")
    }

    /// Creates a Service; its answer is the moment from which the benchmarks count.
    ///
    /// # Errors
    /// What the API server refuses.
    pub(crate) async fn create(&self, service: &Service) -> Result<()> {
        self.services.create(&PostParams::default(), service).await?;
        Ok(())
    }

    /// Creates the Services of these numbers.
    ///
    /// # Errors
    /// What the API server refuses.
    pub(crate) async fn create_services(&self, range: Range<usize>) -> Result<()> {
        each(range, async |number| self.create(&self.service(number)?).await).await.context("creating Services")
    }

    /// Deletes the Services of these numbers.
    ///
    /// # Errors
    /// What the API server refuses.
    pub(crate) async fn delete_services(&self, range: Range<usize>) -> Result<()> {
        each(range, async |number| {
            self.services.delete(&self.name(number), &DeleteParams::default()).await?;
            Ok(())
        })
        .await
        .context("deleting Services")
    }

    async fn patch_status(&self, number: usize, patch: &Value) -> Result<()> {
        self.services.patch_status(&self.name(number), &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Writes addresses into the statuses of these numbers, as an earlier controller would have left them.
    ///
    /// # Errors
    /// What the API server refuses.
    pub(crate) async fn allocate(&self, range: Range<usize>) -> Result<()> {
        each(range, async |number| {
            let patch = json!({
                "metadata": {"annotations": {POOL_ANNOTATION: POOL}},
                "status": {"loadBalancer": {"ingress": [{"ip": standing_address(number)}]}},
            });
            self.patch_status(number, &patch).await
        })
        .await
        .context("filling statuses")
    }

    /// Empties the statuses of these numbers.
    ///
    /// # Errors
    /// What the API server refuses.
    pub(crate) async fn release(&self, range: Range<usize>) -> Result<()> {
        let patch = json!({
            "metadata": {"annotations": {POOL_ANNOTATION: null}},
            "status": {"loadBalancer": {"ingress": null}},
        });
        each(range, async |number| self.patch_status(number, &patch).await).await.context("emptying statuses")
    }

    /// Takes the endpoints of one Service away.
    ///
    /// # Errors
    /// What the API server refuses.
    pub(crate) async fn lose_endpoints(&self, number: usize) -> Result<()> {
        self.patch_endpoints(number, &json!([])).await
    }

    /// Gives the Services of these numbers their endpoints back.
    ///
    /// # Errors
    /// What the API server refuses.
    pub(crate) async fn restore_endpoints(&self, range: Range<usize>) -> Result<()> {
        let endpoints = json!([{
            "addresses": [ENDPOINT_ADDRESS], "nodeName": NODE,
            "conditions": {"ready": true, "serving": true, "terminating": false},
        }]);
        each(range, async |number| self.patch_endpoints(number, &endpoints).await).await.context("restoring endpoints")
    }

    async fn patch_endpoints(&self, number: usize, endpoints: &Value) -> Result<()> {
        let name = format!("{}-ipv4", self.name(number));
        let patch = Patch::Merge(json!({ "endpoints": endpoints }));
        self.slices.patch(&name, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}
