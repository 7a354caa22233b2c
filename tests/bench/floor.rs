//! The floor that Ferrocast is measured against: the least that a program with the same Kubernetes client can do.
//!
//! `floor --kubeconfig FILE --report ADDR:PORT --class CLASS MODE`, where MODE is one of
//! - `answer`: watches Services, answers each new one of the class with one status patch, and reports it when a second
//!   watch shows the address;
//! - `hold`: the same, but the answers wait until `go` arrives on the reporting connection;
//! - `endpoints`: watches EndpointSlices and reports each that lost its endpoints.
//!
//! Reports are lines on a TCP connection: `ready`, `+ADDRESS` and `-ADDRESS` (for a slice: one that stands for it).
#![allow(clippy::disallowed_methods, reason = "a program of its own, without actors")]

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::stream::FuturesUnordered;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config, ResourceExt as _};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

/// Patches under way at once: as many as Ferrocast's status writer allows itself.
const IN_FLIGHT_MAX: usize = 16;
/// Objects per page of a list, as Ferrocast asks for.
const PAGE_SIZE: u32 = 500;
/// Longest wait for a TCP connection to the API server, as Ferrocast's.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The first address given out; never the same twice in one run.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
/// Services waiting for their answer at most.
const QUEUE_LEN_MAX: usize = 65_536;
/// The annotation Ferrocast writes in the same patch, so that both patches weigh the same.
const POOL_ANNOTATION: &str = "metallb.io/ip-allocated-from-pool";

struct Arguments {
    kubeconfig: String,
    report: String,
    class: String,
    mode: String,
}

fn arguments() -> Result<Arguments> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--kubeconfig", kubeconfig, "--report", report, "--class", class, mode] => Ok(Arguments {
            kubeconfig: kubeconfig.to_owned(),
            report: report.to_owned(),
            class: class.to_owned(),
            mode: mode.to_owned(),
        }),
        _ => bail!("usage: floor --kubeconfig FILE --report ADDR:PORT --class CLASS answer|hold|endpoints"),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { kubeconfig, report, class, mode } = arguments()?;
    let client = connect(Path::new(&kubeconfig)).await?;
    let connection = TcpStream::connect(&report).await.context("connecting to the bench")?;
    connection.set_nodelay(true)?;
    let (orders, reports) = connection.into_split();
    match mode.as_str() {
        "answer" => services(client, &class, reports, None).await,
        "hold" => services(client, &class, reports, Some(orders)).await,
        "endpoints" => endpoints(client, reports).await,
        other => bail!("unknown mode {other}"),
    }
}

/// The same client as Ferrocast's.
async fn connect(kubeconfig: &Path) -> Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

fn watch_config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE_SIZE)
}

fn is_of_class(service: &Service, class: &str) -> bool {
    let of = service.spec.as_ref().and_then(|spec| spec.load_balancer_class.as_deref());
    of == Some(class)
}

fn address(service: &Service) -> Option<&str> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    ingress.first()?.ip.as_deref()
}

/// Both watches and the writer; ready once both have listed.
async fn services(client: Client, class: &str, mut reports: OwnedWriteHalf, hold: Option<OwnedReadHalf>) -> Result<()> {
    let (queue, new) = mpsc::channel(QUEUE_LEN_MAX);
    let (listed, mut lists) = mpsc::channel(1);
    let find = tokio::spawn(find_new(client.clone(), class.to_owned(), queue, listed));
    let write = tokio::spawn(answer(client.clone(), new, hold));
    tokio::select! {
        seen = see(client, class, &mut reports, &mut lists) => seen,
        found = find => found?,
        written = write => written?,
    }
}

/// The first watch: puts every new Service without an address into the queue.
async fn find_new(client: Client, class: String, queue: mpsc::Sender<Service>, listed: mpsc::Sender<()>) -> Result<()> {
    let mut stream = std::pin::pin!(watcher(Api::<Service>::all(client), watch_config()));
    let mut known = HashSet::new();
    while let Some(event) = stream.try_next().await? {
        match event {
            Event::Apply(service) | Event::InitApply(service) => {
                if is_of_class(&service, &class)
                    && address(&service).is_none()
                    && known.insert(service.uid().unwrap_or_default())
                {
                    queue.send(service).await?;
                }
            }
            Event::Delete(service) => drop(known.remove(&service.uid().unwrap_or_default())),
            Event::InitDone => listed.send(()).await?,
            Event::Init => {}
        }
    }
    bail!("the first watch has ended")
}

/// The writer: one patch per Service, [`IN_FLIGHT_MAX`] at once.
async fn answer(client: Client, mut new: mpsc::Receiver<Service>, hold: Option<OwnedReadHalf>) -> Result<()> {
    let mut waiting = VecDeque::new();
    if let Some(orders) = hold {
        let mut line = String::new();
        BufReader::new(orders).read_line(&mut line).await?;
    }
    let mut patches = FuturesUnordered::new();
    let mut next = u32::from(FIRST_ADDRESS);
    loop {
        while patches.len() < IN_FLIGHT_MAX
            && let Some(service) = waiting.pop_front()
        {
            next += 1;
            patches.push(patch(client.clone(), service, Ipv4Addr::from(next)));
        }
        tokio::select! {
            Some(done) = patches.next(), if !patches.is_empty() => done?,
            service = new.recv() => waiting.push_back(service.context("the first watch has ended")?),
        }
    }
}

async fn patch(client: Client, service: Service, ip: Ipv4Addr) -> Result<()> {
    let api: Api<Service> = Api::namespaced(client, &service.namespace().unwrap_or_default());
    let patch = json!({
        "metadata": {"resourceVersion": service.resource_version(), "annotations": {POOL_ANNOTATION: "floor"}},
        "status": {"loadBalancer": {"ingress": [{"ip": ip}]}},
    });
    api.patch_status(&service.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

/// The second watch: reports each Service when its address is first seen.
async fn see(client: Client, class: &str, reports: &mut OwnedWriteHalf, lists: &mut mpsc::Receiver<()>) -> Result<()> {
    let mut stream = std::pin::pin!(watcher(Api::<Service>::all(client), watch_config()));
    let mut known = HashSet::new();
    while let Some(event) = stream.try_next().await? {
        match event {
            Event::InitApply(service) => {
                if address(&service).is_some() {
                    known.insert(service.uid().unwrap_or_default());
                }
            }
            Event::Apply(service) => {
                if let Some(ip) = address(&service).filter(|_| is_of_class(&service, class))
                    && known.insert(service.uid().unwrap_or_default())
                {
                    reports.write_all(format!("+{ip}\n").as_bytes()).await?;
                }
            }
            Event::Delete(service) => drop(known.remove(&service.uid().unwrap_or_default())),
            Event::InitDone => {
                lists.recv().await.context("the first watch has ended")?;
                reports.write_all(b"ready\n").await?;
            }
            Event::Init => {}
        }
    }
    bail!("the second watch has ended")
}

/// The bare watch of EndpointSlices: reports each that has lost its endpoints, by a number of its own.
async fn endpoints(client: Client, mut reports: OwnedWriteHalf) -> Result<()> {
    let mut stream = std::pin::pin!(watcher(Api::<EndpointSlice>::all(client), watch_config()));
    let mut standing: HashMap<String, Ipv4Addr> = HashMap::new();
    let mut next = u32::from(FIRST_ADDRESS);
    while let Some(event) = stream.try_next().await? {
        match event {
            Event::InitApply(slice) | Event::Apply(slice) => {
                let name = slice.name_any();
                let has_endpoints = slice.endpoints.iter().flatten().next().is_some();
                match (has_endpoints, standing.entry(name)) {
                    (true, Entry::Vacant(unknown)) => {
                        next += 1;
                        let ip = unknown.insert(Ipv4Addr::from(next));
                        reports.write_all(format!("+{ip}\n").as_bytes()).await?;
                    }
                    (false, Entry::Occupied(known)) => {
                        let ip = known.remove();
                        reports.write_all(format!("-{ip}\n").as_bytes()).await?;
                    }
                    _ => {}
                }
            }
            Event::Delete(slice) => drop(standing.remove(&slice.name_any())),
            Event::InitDone => reports.write_all(b"ready\n").await?,
            Event::Init => {}
        }
    }
    bail!("the watch has ended")
}
