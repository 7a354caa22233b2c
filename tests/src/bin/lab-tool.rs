//! The small servers and clients of the lab: what stands in for a workload, a user and a stuck router.
//!
//! `serve` answers HTTP on 8080 with the address it was reached at and echoes on 8081; `hold ADDR:PORT` keeps one
//! connection busy and ends as soon as it breaks; `hold-many FROM ADDR:PORT COUNT` keeps that many busy and says every
//! second how many live and how many have broken; `stuck-router ADDR:PORT AS` opens a BGP session and stops reading.

use std::cell::Cell;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use futures::future::{join, join_all, try_join_all};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep, timeout};

/// Where a backend answers HTTP.
const HTTP_PORT: u16 = 8080;
/// Where a backend echoes.
const ECHO_PORT: u16 = 8081;
/// Pause between two messages on a held connection, ms.
const HOLD_INTERVAL_MS: u64 = 100;
/// The same where many are held: their number makes up for it, ms.
const HOLD_MANY_INTERVAL_MS: u64 = 200;
/// Pause between two reports on many held connections, s.
const REPORT_INTERVAL_S: u64 = 1;
/// How long an echo may take before the connection counts as broken, s.
const ECHO_TIME_MAX_S: u64 = 5;
/// Pause between two KEEPALIVEs of the stuck router, s.
const KEEPALIVE_INTERVAL_S: u64 = 1;
/// A message of BGP is never longer. Source: RFC 4271 §4.1.
const BGP_MESSAGE_LEN_MAX: usize = 4096;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["serve"] => serve(),
        ["hold", address] => hold(address),
        ["hold-many", from, address, count] => hold_many(from, address, count),
        ["stuck-router", address, asn] => stuck_router(address, asn),
        _ => Err(io::Error::other(
            "usage: lab-tool serve | hold ADDR:PORT | hold-many FROM ADDR:PORT COUNT | stuck-router ADDR:PORT AS",
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-tool: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let echo = TcpListener::bind(("::", ECHO_PORT))?;
    let http = TcpListener::bind(("::", HTTP_PORT))?;
    println!("serving");
    thread::spawn(move || each(&echo, |stream| io::copy(&mut &stream, &mut &stream).map(drop)));
    each(&http, answer);
    Ok(())
}

/// One thread for each connection: the lab has few.
fn each(listener: &TcpListener, handle: fn(TcpStream) -> io::Result<()>) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || {
            if let Err(error) = handle(stream) {
                println!("connection: {error}");
            }
        });
    }
}

fn answer(stream: TcpStream) -> io::Result<()> {
    let reached_at = stream.local_addr()?.ip().to_canonical();
    let request = BufReader::new(stream.try_clone()?);
    for line in request.lines() {
        if line?.is_empty() {
            break;
        }
    }
    let body = reached_at.to_string();
    write!(&stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn hold(address: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(ECHO_TIME_MAX_S)))?;
    for count in 0_u64.. {
        let sent = count.to_be_bytes();
        stream.write_all(&sent)?;
        let mut received = [0; size_of::<u64>()];
        stream.read_exact(&mut received)?;
        if sent != received {
            return Err(io::Error::other("the echo is not what was sent"));
        }
        println!("{count}");
        thread::sleep(Duration::from_millis(HOLD_INTERVAL_MS));
    }
    Ok(())
}

/// What became of many held connections.
#[derive(Default)]
struct Tally {
    held: Cell<usize>,
    broken: Cell<usize>,
    echoes: Cell<u64>,
    /// Longest time that an echo took.
    slowest: Cell<Duration>,
}

fn hold_many(from: &str, address: &str, count: &str) -> io::Result<()> {
    let from: IpAddr = from.parse().map_err(io::Error::other)?;
    let to: SocketAddr = address.parse().map_err(io::Error::other)?;
    let count: usize = count.parse().map_err(io::Error::other)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let streams = try_join_all((0..count).map(|_| connect(from, to))).await?;
        let tally = Tally::default();
        tally.held.set(count);
        let reports = async {
            loop {
                let (held, broken, echoes) = (tally.held.get(), tally.broken.get(), tally.echoes.get());
                println!("held {held} broken {broken} echoes {echoes} slowest-ms {}", tally.slowest.get().as_millis());
                sleep(Duration::from_secs(REPORT_INTERVAL_S)).await;
            }
        };
        // The reports go on after the last connection broke.
        let (_, ()): (Vec<()>, ()) =
            join(join_all(streams.into_iter().map(|stream| keep_busy(stream, &tally))), reports).await;
        Ok(())
    })
}

async fn connect(from: IpAddr, to: SocketAddr) -> io::Result<tokio::net::TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = timeout(Duration::from_secs(ECHO_TIME_MAX_S), socket.connect(to)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Exchanges messages until the connection breaks.
async fn keep_busy(mut stream: tokio::net::TcpStream, tally: &Tally) {
    let local = stream.local_addr();
    for count in 0_u64.. {
        let began = Instant::now();
        let echoed = match timeout(Duration::from_secs(ECHO_TIME_MAX_S), exchange(&mut stream, count)).await {
            Ok(echoed) => echoed,
            Err(late) => Err(late.into()),
        };
        if let Err(error) = echoed {
            println!("connection from {local:?} broke at message {count}: {error}");
            tally.held.set(tally.held.get() - 1);
            tally.broken.set(tally.broken.get() + 1);
            return;
        }
        tally.echoes.set(tally.echoes.get() + 1);
        tally.slowest.set(tally.slowest.get().max(began.elapsed()));
        sleep(Duration::from_millis(HOLD_MANY_INTERVAL_MS)).await;
    }
}

async fn exchange(stream: &mut tokio::net::TcpStream, count: u64) -> io::Result<()> {
    let sent = count.to_be_bytes();
    stream.write_all(&sent).await?;
    let mut received = [0; size_of::<u64>()];
    stream.read_exact(&mut received).await?;
    if sent == received { Ok(()) } else { Err(io::Error::other("the echo is not what was sent")) }
}

fn stuck_router(address: &str, asn: &str) -> io::Result<()> {
    let asn: u16 = asn.parse().map_err(io::Error::other)?;
    let listener = TcpListener::bind(address)?;
    println!("listening");
    for stream in listener.incoming() {
        let stream = stream?;
        // Errors end one session; the speaker dials again.
        thread::spawn(move || open_then_stop_reading(stream, asn).map_err(|error| println!("session ended: {error}")));
    }
    Ok(())
}

fn open_then_stop_reading(mut stream: TcpStream, asn: u16) -> io::Result<()> {
    let open = read_message(&mut stream)?;
    // Its hold time is taken over; multiprotocol for IPv4 is the only capability.
    let hold_time = [open[3], open[4]];
    let mut body = vec![4];
    body.extend(asn.to_be_bytes());
    body.extend(hold_time);
    body.extend([10, 99, 0, 13, 8, 2, 6, 1, 4, 0, 1, 0, 1]);
    stream.write_all(&message(1, &body))?;
    stream.write_all(&message(4, &[]))?;
    let confirmed = read_message(&mut stream)?;
    println!("established, reads no more ({} octets of the last message)", confirmed.len());
    loop {
        stream.write_all(&message(4, &[]))?;
        thread::sleep(Duration::from_secs(KEEPALIVE_INTERVAL_S));
    }
}

/// A message with its marker and length. Source: RFC 4271 §4.1.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap_or(u16::MAX);
    let mut octets = vec![0xff; 16];
    octets.extend(length.to_be_bytes());
    octets.push(kind);
    octets.extend(body);
    octets
}

/// The body of the next message.
fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut header = [0; 19];
    stream.read_exact(&mut header)?;
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    if !(19..=BGP_MESSAGE_LEN_MAX).contains(&length) {
        return Err(io::Error::other("not a BGP message"));
    }
    let mut body = vec![0; length - 19];
    stream.read_exact(&mut body)?;
    Ok(body)
}
