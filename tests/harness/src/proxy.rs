//! A wire to the broker that can be slow or cut, also in one direction only, and that can move the broker's clock.
//!
//! The proxy uses threads instead of tasks, because tokio's timers have a granularity of a millisecond and a
//! delay of half a millisecond each way must differ from one of a whole millisecond. In each direction, one
//! thread notes the arrival time of bytes and another forwards them when they are due. So order is kept, and
//! bytes that arrive meanwhile are not held back.

use crate::clock::MovedClock;
use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Limit of reads on the wire in one direction.
const CHUNKS_MAX: usize = 1024;
/// Most bytes taken in one read.
const CHUNK: usize = 64 * 1024;

/// A proxy in front of one broker, on its own loopback port. Dropping the value ends its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    wire: Arc<Wire>,
}

#[derive(Debug)]
struct Wire {
    upstream: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    one_way: Duration,
    /// By how many seconds the times in the broker's messages are moved.
    clock: i64,
    /// Whether bytes towards the broker are held back.
    cut_towards: bool,
    /// Whether bytes from the broker are held back.
    cut_from: bool,
    ended: bool,
    /// Both ends of every connection made so far.
    open: Vec<TcpStream>,
}

/// Direction of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Towards the broker.
    Towards,
    /// From the broker to the client.
    From,
}

impl State {
    fn is_cut(&self, way: Way) -> bool {
        match way {
            Way::Towards => self.cut_towards,
            Way::From => self.cut_from,
        }
    }
}

/// The bytes of one read, and the instant at which they are due.
type Chunk = (Instant, Vec<u8>);

impl Proxy {
    /// Starts a proxy to the broker with this URL. The proxy forwards without delay until told otherwise.
    ///
    /// # Panics
    /// The URL is not `nats://ADDRESS:PORT`, or no port is free.
    pub fn to(url: &str) -> Self {
        let upstream = url.trim_start_matches("nats://").parse();
        let upstream = upstream.unwrap_or_else(|e| panic!("{url}: {e}"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let wire = Arc::new(Wire {
            upstream,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = wire.clone();
        thread::spawn(move || accepting.accept(&listener));
        Self { address, wire }
    }

    /// Returns the proxy's URL, for `nats.url`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Adds this delay to every round trip from now on, half of it each way.
    pub fn delay(&self, added_round_trip: Duration) {
        self.wire.state().one_way = added_round_trip / 2;
    }

    /// Moves the broker's wall clock by so many seconds, as its clients see it.
    pub fn move_clock(&self, by_seconds: i64) {
        self.wire.state().clock = by_seconds;
    }

    /// Stops all traffic in both directions. Connections stay open and new connections stay silent: like a
    /// pulled cable, neither side is told.
    pub fn cut(&self) {
        self.set(true, true);
    }

    /// Stops traffic to the broker; traffic from the broker passes. New connections stay silent.
    pub fn cut_towards(&self) {
        self.set(true, false);
    }

    /// Stops traffic from the broker; traffic to the broker passes. New connections stay silent.
    pub fn cut_from(&self) {
        self.set(false, true);
    }

    /// Ends all cuts: held back bytes and later ones pass.
    pub fn heal(&self) {
        self.set(false, false);
    }

    fn set(&self, towards: bool, from: bool) {
        {
            let mut state = self.wire.state();
            (state.cut_towards, state.cut_from) = (towards, from);
        }
        self.wire.changed.notify_all();
    }

    /// Ends every connection, like a router that restarts. New connections are accepted unless the
    /// wire is cut.
    pub fn reset(&self) {
        for stream in self.wire.state().open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.wire.state().ended = true;
        self.wire.changed.notify_all();
        self.reset();
        // The listener's thread blocks on a connection, so this connection wakes the thread.
        let _ = TcpStream::connect(self.address);
    }
}

impl Wire {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the wire is cut this way, and returns the delay; an error when the proxy is dropped.
    fn whole(&self, way: Way) -> io::Result<Duration> {
        let cut = |state: &mut State| state.is_cut(way) && !state.ended;
        let state = self.changed.wait_while(self.state(), cut);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        if state.ended {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(state.one_way)
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming().map_while(Result::ok) {
            if self.state().ended {
                return;
            }
            let wire = self.clone();
            // On an error the stream is dropped, and the client sees its connection end.
            thread::spawn(move || wire.connect(client));
        }
    }

    fn connect(self: Arc<Self>, client: TcpStream) -> io::Result<()> {
        // A TCP handshake needs both directions.
        self.whole(Way::Towards)?;
        self.whole(Way::From)?;
        let server = TcpStream::connect(self.upstream)?;
        let ways = [(&client, &server, Way::Towards), (&server, &client, Way::From)];
        for (from, to, way) in ways {
            from.set_nodelay(true)?;
            self.state().open.push(from.try_clone()?);
            let (reader, writer) = sync_channel(CHUNKS_MAX);
            let (from, to) = (from.try_clone()?, to.try_clone()?);
            let (reading, writing) = (self.clone(), self.clone());
            thread::spawn(move || reading.read(from, &reader, way));
            thread::spawn(move || writing.write(to, &writer, way));
        }
        Ok(())
    }

    fn read(&self, mut from: TcpStream, chunks: &SyncSender<Chunk>, way: Way) -> io::Result<()> {
        let (mut buffer, mut clock) = (vec![0; CHUNK], MovedClock::default());
        loop {
            let read = from.read(&mut buffer)?;
            let arrived = Instant::now();
            let one_way = self.whole(way)?;
            let bytes = match way {
                Way::Towards => buffer[..read].to_vec(),
                Way::From => clock.pass(&buffer[..read], self.state().clock),
            };
            if read == 0 || chunks.send((arrived + one_way, bytes)).is_err() {
                return Ok(());
            }
        }
    }

    fn write(&self, mut to: TcpStream, chunks: &Receiver<Chunk>, way: Way) {
        // By default the system may wake a thread 50 µs late: a tenth of the least delay.
        #[cfg(target_os = "linux")]
        let _ = nix::sys::prctl::set_timerslack(1);
        for (due, chunk) in chunks {
            #[expect(
                clippy::disallowed_methods,
                reason = "the delay itself, on a thread of its own"
            )]
            thread::sleep(due.saturating_duration_since(Instant::now())); // wait: the length of the wire
            if self.whole(way).is_err() || to.write_all(&chunk).is_err() {
                break;
            }
        }
        // One side has ended, so the other side is told.
        let _ = to.shutdown(Shutdown::Both);
    }
}
