//! Measures `ferrocast plan` on a large cluster: `tests/bench/run plan` builds and calls it.
//!
//! `bench-plan [--services N] [--nodes N] [--runs N]`; $FERROCAST_BIN is the binary. Time and memory are those that the kernel
//! accounts to the process; what reading the manifests costs is told by a run that only reads them.
#![allow(clippy::disallowed_methods, reason = "benchmarks read the clock; the product does not")]
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

/// What the issue asks for.
const SERVICES: usize = 10_000;
const NODES: usize = 100;
const RUNS: usize = 3;
/// Every so many Services one has `externalTrafficPolicy: Local`.
const LOCAL_EACH: usize = 4;
/// Endpoints of a Service.
const ENDPOINTS: usize = 3;
/// Nodes of a rack, for the selectors.
const RACK: usize = 20;

/// One measurement.
struct Cost {
    /// Seconds on the wall.
    elapsed_s: f64,
    /// Seconds of both user and system.
    cpu_s: f64,
    /// Largest resident set, MiB.
    memory_mib: f64,
    /// Octets written.
    octets: u64,
    code: Option<i32>,
    /// What the command itself says of its parts.
    parts: String,
}

fn main() -> Result<()> {
    let (mut services, mut nodes, mut runs) = (SERVICES, NODES, RUNS);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?.parse()?;
        match word.as_str() {
            "--services" => services = value,
            "--nodes" => nodes = value,
            "--runs" => runs = value,
            _ => bail!("usage: bench-plan [--services N] [--nodes N] [--runs N]"),
        }
    }
    let binary: PathBuf = std::env::var_os("FERROCAST_BIN").context("set FERROCAST_BIN")?.into();
    let dir = tempfile::tempdir()?;
    let (now, change) = (dir.path().join("now"), dir.path().join("change.yaml"));
    generate(&now, services, nodes)?;
    fs::write(&change, applied(services)?)?;
    let (now, change) = (now.display().to_string(), change.display().to_string());
    println!(
        "{services} Services ({} Local) with {ENDPOINTS} endpoints each, {nodes} nodes, 3 peers",
        services / LOCAL_EACH
    );
    println!("| what | elapsed s | CPU s | memory MiB | written MiB | parts |\n|---|---|---|---|---|---|");
    for (what, args) in [
        ("decided and compared", vec!["plan", "-f", &change, "--against", &now]),
        ("decided and compared, JSON", vec!["plan", "-f", &change, "--against", &now, "-o", "json"]),
        ("whole state, JSON", vec!["plan", &now, "-o", "json"]),
    ] {
        for _ in 0..runs {
            let cost = run(&binary, &args)?;
            if !matches!(cost.code, Some(0 | 2)) {
                bail!("{what}: exit code {:?}", cost.code);
            }
            #[expect(clippy::cast_precision_loss, reason = "shown in MiB")]
            let written = cost.octets as f64 / f64::from(1 << 20);
            println!(
                "| {what} | {:.2} | {:.2} | {:.0} | {written:.1} | {} |",
                cost.elapsed_s, cost.cpu_s, cost.memory_mib, cost.parts
            );
        }
    }
    Ok(())
}

/// Runs the command, counts what it writes, and asks the kernel what it cost.
fn run(binary: &Path, args: &[&str]) -> Result<Cost> {
    let began = Instant::now();
    let mut child = Command::new(binary)
        .args(args)
        .env("FERROCAST_LOG", "ferrocast::plan=debug,off")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut out = child.stdout.take().context("stdout")?;
    let octets = std::io::copy(&mut out, &mut std::io::sink())?;
    let mut parts = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().context("stderr")?, &mut parts)?;
    let id = i32::try_from(child.id())?;
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    #[expect(unsafe_code, reason = "std has no wait that tells the resources used")]
    // SAFETY: both pointers are valid for writes; the child is ours and has not been waited for.
    let (waited, usage) = unsafe {
        let waited = libc::wait4(id, &raw mut status, 0, usage.as_mut_ptr());
        (waited, usage.assume_init())
    };
    if waited != id {
        return Err(std::io::Error::last_os_error().into());
    }
    #[expect(clippy::cast_precision_loss, reason = "seconds and MiB of a benchmark")]
    let (seconds, memory_mib) =
        (|time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6, usage.ru_maxrss as f64 / 1024.0);
    Ok(Cost {
        elapsed_s: began.elapsed().as_secs_f64(),
        cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        memory_mib,
        octets,
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        parts: parts_of(&parts),
    })
}

/// The parts of the work and their times, from the log.
fn parts_of(log: &str) -> String {
    let parts: Vec<&str> =
        log.lines().filter_map(|line| line.split_once("took ").map(|(_, rest)| rest.trim())).collect();
    parts.join(", ")
}

/// The manifests of a cluster.
fn generate(dir: &Path, services: usize, nodes: usize) -> Result<()> {
    fs::create_dir_all(dir)?;
    let mut text = String::from(
        "apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: public, namespace: metallb-system}
spec: {addresses: [10.64.0.0/16]}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: all, namespace: metallb-system}
spec: {communities: [\"64512:100\"]}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: rack0, namespace: metallb-system}
spec: {nodeSelectors: [{matchLabels: {rack: r0}}], communities: [\"64512:200\"]}
",
    );
    for (i, selector) in
        ["", ", nodeSelectors: [{matchLabels: {rack: r0}}]", ", nodeSelectors: [{matchLabels: {rack: r1}}]"]
            .iter()
            .enumerate()
    {
        write!(
            text,
            "---\napiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {{name: peer{i}, namespace: metallb-system}}\n\
             spec: {{myASN: 64512, peerASN: 64513, peerAddress: 203.0.113.{}{selector}}}\n",
            i + 1
        )?;
    }
    for i in 0..nodes {
        write!(
            text,
            "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: node{i}\n  labels: {{kubernetes.io/hostname: node{i}, rack: r{}}}\n\
             status:\n  addresses: [{{type: InternalIP, address: 10.1.{}.{}}}]\n",
            i / RACK,
            i / 250,
            i % 250 + 1
        )?;
    }
    fs::write(dir.join("cluster.yaml"), text)?;
    let mut text = String::new();
    for i in 0..services {
        service(&mut text, i)?;
        slice(&mut text, i, nodes)?;
    }
    fs::write(dir.join("services.yaml"), text)?;
    Ok(())
}

fn service(text: &mut String, i: usize) -> Result<()> {
    let policy = if i.is_multiple_of(LOCAL_EACH) { "Local" } else { "Cluster" };
    write!(
        text,
        "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: s{i}\n  namespace: ns{}\n  creationTimestamp: 2026-01-01T00:00:00Z\n\
         spec:\n  type: LoadBalancer\n  externalTrafficPolicy: {policy}\n  selector: {{app: s{i}}}\n  ports:\n  - port: 80\n    protocol: TCP\n\
         status:\n  loadBalancer:\n    ingress:\n    - ip: 10.64.{}.{}\n",
        i % 100,
        i / 256,
        i % 256
    )?;
    Ok(())
}

fn slice(text: &mut String, i: usize, nodes: usize) -> Result<()> {
    write!(
        text,
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: s{i}-1\n  namespace: ns{}\n  \
         labels: {{kubernetes.io/service-name: s{i}}}\naddressType: IPv4\nendpoints:\n",
        i % 100
    )?;
    for n in 0..ENDPOINTS {
        let node = (i * 7 + n * 31) % nodes.max(1);
        writeln!(text, "- addresses: [10.{}.{}.{}]\n  nodeName: node{node}", 128 + n, i / 256, i % 256)?;
    }
    Ok(())
}

/// What is applied: an edited advertisement, and new Services, a hundredth of those there are.
fn applied(services: usize) -> Result<String> {
    let mut text = String::from(
        "apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: rack0, namespace: metallb-system}
spec: {nodeSelectors: [{matchLabels: {rack: r1}}], communities: [\"64512:300\"]}
",
    );
    for i in 0..services / 100 {
        write!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: new{i}, namespace: ns0}}\n\
             spec: {{type: LoadBalancer, selector: {{app: new{i}}}, ports: [{{port: 80}}]}}\n"
        )?;
    }
    Ok(text)
}
