//! A wire to the broker that can be slow, and that can be cut, in one direction too.
//!
//! Threads and not tasks: tokio's timers are a millisecond coarse, and half a millisecond each way is
//! to be told from one. In each direction one thread notes when bytes arrived and another passes them
//! on when their time has come, so that order is kept and what arrives meanwhile is not held back.

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

/// How many reads may be on the wire in one direction.
const CHUNKS_MAX: usize = 1024;
/// The most that is read at once.
const CHUNK: usize = 64 * 1024;

/// A proxy in front of one broker, on a loopback port of its own. When dropped, its connections end.
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
    /// Nothing reaches the broker.
    cut_towards: bool,
    /// Nothing comes from it.
    cut_from: bool,
    ended: bool,
    /// Both ends of every connection that was made.
    open: Vec<TcpStream>,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// To the broker.
    Towards,
    /// From it.
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

/// What was read, and when it may go on.
type Chunk = (Instant, Vec<u8>);

impl Proxy {
    /// A proxy to the broker of this URL. It passes everything on at once until told otherwise.
    ///
    /// # Panics
    /// The URL is not `nats://ADDRESS:PORT`, or there is no free port.
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

    /// Its URL, for `nats.url`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Adds this much to every round trip from now on, half of it each way.
    pub fn delay(&self, added_round_trip: Duration) {
        self.wire.state().one_way = added_round_trip / 2;
    }

    /// Nothing passes any more, in either direction; connections stay, new ones stay silent. As with
    /// a cable that is pulled, neither side is told.
    pub fn cut(&self) {
        self.set(true, true);
    }

    /// Nothing reaches the broker any more; what it says passes. New connections stay silent.
    pub fn cut_towards(&self) {
        self.set(true, false);
    }

    /// Nothing comes from the broker any more; what is said to it passes. New connections stay silent.
    pub fn cut_from(&self) {
        self.set(false, true);
    }

    /// What was held back passes, and what follows.
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

    /// Ends every connection, as a router that restarts does. New ones are taken unless it is cut.
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
        // The listener's thread waits for a connection: this one tells it to look up.
        let _ = TcpStream::connect(self.address);
    }
}

impl Wire {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the wire is cut this way; an error when the proxy is gone.
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
            // Dropped on an error: the client sees its connection end.
            thread::spawn(move || wire.connect(client));
        }
    }

    fn connect(self: Arc<Self>, client: TcpStream) -> io::Result<()> {
        // A connection takes both ways to make.
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
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = from.read(&mut buffer)?;
            let arrived = Instant::now();
            let one_way = self.whole(way)?;
            if read == 0 || chunks.send((arrived + one_way, buffer[..read].to_vec())).is_err() {
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
        // The other side has ended, or this one has: whoever is left is told.
        let _ = to.shutdown(Shutdown::Both);
    }
}
