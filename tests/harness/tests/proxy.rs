//! Tests of the proxy in front of an echo server.

use push0_harness::Proxy;
use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

const LONG: Duration = Duration::from_secs(10);

/// Returns a proxy to an echo server, and a connection through the proxy.
fn line() -> (Proxy, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("nats://{}", listener.local_addr().expect("bound"));
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut back = stream.try_clone().expect("a handle");
            thread::spawn(move || io::copy(&mut stream, &mut back));
        }
    });
    let proxy = Proxy::to(&url);
    let stream = connect(&proxy);
    (proxy, stream)
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.url().trim_start_matches("nats://")).expect("it listens");
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(LONG)).expect("an option");
    stream
}

/// Sends one byte and returns the time until the byte came back.
fn round_trip(stream: &mut TcpStream, byte: u8) -> io::Result<Duration> {
    let began = Instant::now();
    stream.write_all(&[byte])?;
    let mut back = [0];
    stream.read_exact(&mut back)?;
    assert_eq!(back, [byte]);
    Ok(began.elapsed())
}

#[test]
fn a_delay_is_added_to_every_round_trip_and_not_to_each_part_of_a_stream() {
    let (proxy, mut stream) = line();
    let mut median = |delay| {
        proxy.delay(delay);
        let mut each: Vec<_> = (0..21)
            .map(|n| round_trip(&mut stream, n).expect("it comes back"))
            .collect();
        each.sort();
        each[10]
    };
    let (bare, delayed) = (median(Duration::ZERO), median(Duration::from_millis(4)));
    assert!(
        delayed >= Duration::from_millis(4),
        "{delayed:?}, without delay {bare:?}"
    );

    // A hundred bytes on the wire at once take one round trip and arrive in order.
    proxy.delay(Duration::from_millis(200));
    let sent: Vec<u8> = (0..100).collect();
    let began = Instant::now();
    for byte in &sent {
        stream.write_all(&[*byte]).expect("sent");
    }
    let mut back = [0; 100];
    stream.read_exact(&mut back).expect("all of it");
    assert_eq!(back.as_slice(), sent);
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn what_is_sent_over_a_cut_wire_arrives_when_it_is_healed() {
    let (proxy, mut stream) = line();
    round_trip(&mut stream, 1).expect("whole");
    proxy.cut();
    let short = Duration::from_millis(100);
    stream.set_read_timeout(Some(short)).expect("an option");
    let silent = round_trip(&mut stream, 2).expect_err("nothing passes");
    assert_eq!(silent.kind(), io::ErrorKind::WouldBlock);
    // New connections are silent too.
    let mut other = connect(&proxy);
    other.set_read_timeout(Some(short)).expect("an option");
    let silent = round_trip(&mut other, 3).expect_err("nothing passes");
    assert_eq!(silent.kind(), io::ErrorKind::WouldBlock);

    proxy.heal();
    for (stream, byte) in [(&mut stream, 2), (&mut other, 3)] {
        stream.set_read_timeout(Some(LONG)).expect("an option");
        let mut back = [0];
        stream.read_exact(&mut back).expect("what was held back");
        assert_eq!(back, [byte]);
    }
}

#[test]
fn a_reset_ends_what_was_connected_and_takes_new_connections() {
    let (proxy, mut stream) = line();
    round_trip(&mut stream, 1).expect("whole");
    proxy.reset();
    assert!(round_trip(&mut stream, 2).is_err(), "the connection has ended");
    round_trip(&mut connect(&proxy), 3).expect("a new one works");

    let mut last = connect(&proxy);
    round_trip(&mut last, 4).expect("whole");
    drop(proxy);
    assert!(round_trip(&mut last, 5).is_err(), "it ended with the proxy");
}
