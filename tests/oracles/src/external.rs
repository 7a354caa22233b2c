//! Programs that decode BGP, in other languages: tshark and ExaBGP.
use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

/// Where `program` is, if it is installed.
#[must_use]
pub fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Some packages put it where only root looks.
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Says that a test was not run, in the words that the summary of `tests/run` counts. Not by the macros that the test harness
/// swallows when a test passes.
pub fn skip(test: &str, program: &str) {
    let line = format!("test {test} ... skipped: {program} is not installed\n");
    io::stderr().write_all(line.as_bytes()).unwrap_or_default();
}

/// Version, and the link type of bare IP packets.
const PCAP_MAGIC: u32 = 0xa1b2_c3d4;
const LINKTYPE_RAW: u32 = 101;
/// Longest packet that is kept, octets.
const SNAP_LEN: u32 = 65_535;
/// Octets of the IPv4 and TCP headers, without options.
const IPV4_LEN: usize = 20;
const TCP_LEN: usize = 20;
/// The port of BGP.
const PORT: u16 = 179;

/// Writes messages as the octets of one TCP connection, one packet for each.
///
/// # Errors
/// The file cannot be written.
pub fn write_pcap(file: &Path, messages: &[Vec<u8>]) -> io::Result<()> {
    let mut out = vec![];
    out.extend(PCAP_MAGIC.to_be_bytes());
    out.extend([0, 2, 0, 4]);
    out.extend([0; 8]);
    out.extend(SNAP_LEN.to_be_bytes());
    out.extend(LINKTYPE_RAW.to_be_bytes());
    let mut sequence: u32 = 1;
    for (second, message) in (0_u32..).zip(messages) {
        let packet = packet(message, sequence);
        let len = u32::try_from(packet.len()).unwrap_or(SNAP_LEN);
        out.extend(second.to_be_bytes());
        out.extend([0; 4]);
        out.extend(len.to_be_bytes());
        out.extend(len.to_be_bytes());
        out.extend(packet);
        sequence = sequence.wrapping_add(u32::try_from(message.len()).unwrap_or(0));
    }
    std::fs::write(file, out)
}

/// A TCP segment with PSH and ACK from one documentation address to another.
fn packet(payload: &[u8], sequence: u32) -> Vec<u8> {
    let len = u16::try_from(IPV4_LEN + TCP_LEN + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0xc0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 255, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    packet.extend(50_000_u16.to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend(1_u32.to_be_bytes());
    packet.extend([0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    packet.extend(payload);
    packet
}

/// What tshark prints about `pcap`, one line a packet.
///
/// # Errors
/// It cannot be run, or refuses.
pub fn tshark(program: &Path, pcap: &Path, as4: bool, arguments: &[&str]) -> io::Result<Vec<String>> {
    let asn_len = format!("bgp.asn_len:{} octet", if as4 { 4 } else { 2 });
    let output = Command::new(program)
        .args(["-n", "-o", &asn_len, "-o", "tcp.check_checksum:FALSE", "-o", "ip.check_checksum:FALSE"])
        .args(["-o", "tcp.analyze_sequence_numbers:FALSE", "-r"])
        .arg(pcap)
        .args(arguments)
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// A peer that has every family, so that ExaBGP decodes with all of them.
const EXABGP_CONFIGURATION: &str = "neighbor 192.0.2.1 {
  router-id 192.0.2.2;
  local-address 192.0.2.2;
  local-as 64500;
  peer-as 64501;
  capability { asn4 AS4; nexthop enable; }
  nexthop { ipv4 unicast ipv6; }
  family { ipv4 unicast; ipv6 unicast; }
}
";

/// What ExaBGP makes of these UPDATEs, as JSON, one for each.
///
/// # Errors
/// It cannot be run, or does not understand one of them.
pub fn exabgp(program: &Path, folder: &Path, as4: bool, messages: &[Vec<u8>]) -> io::Result<Vec<serde_json::Value>> {
    let configuration = folder.join("exabgp.conf");
    std::fs::write(&configuration, EXABGP_CONFIGURATION.replace("AS4", if as4 { "enable" } else { "disable" }))?;
    let hex: String = messages.iter().flatten().map(|octet| format!("{octet:02X}")).collect();
    let output = Command::new(program)
        .envs([
            ("exabgp.daemon.user", "root"),
            ("exabgp.api.cli", "false"),
            ("exabgp.log.destination", "stdout"),
            ("exabgp.log.level", "INFO"),
            ("exabgp.log.parser", "true"),
        ])
        .arg(&configuration)
        .args(["--decode", &hex])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let found: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once("update json "))
        .filter_map(|(_, json)| serde_json::from_str(json.trim()).ok())
        .collect();
    if found.len() == messages.len() {
        Ok(found)
    } else {
        Err(io::Error::other(format!("{} of {}: {text}", found.len(), messages.len())))
    }
}

/// Prints what was looked at if a test fails meanwhile.
pub struct Looking(pub String);

impl Drop for Looking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("looking at {}", self.0);
        }
    }
}
