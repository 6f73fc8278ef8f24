//! Cost of traces: a deployment with all traces beside one without traces, in turn.
//!
//! The receiver takes every span and looks at none, so that its work is not charged to push0.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::{Windows, median, spread, steady_rate},
};
use anyhow::{Context as _, bail};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const SLOTS: u32 = 64;
const RATE: f64 = 50.0;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let (endpoint, received, _receiver) = receive().await?;
    let builder = || {
        stand::quick()
            .service(stand::prover("p1", SLOTS, Duration::ZERO))
            .service(stand::verifier("v1", SLOTS))
    };
    let telling = builder()
        .env("PUSH0_TELEMETRY__OTLP_ENDPOINT", &endpoint)
        .env("PUSH0_TELEMETRY__OTLP_PROTOCOL", "http");
    let pipeline = stand::single(true);
    let mut all = Side::start(Stand::start(telling, &pipeline).await?).await?;
    let mut none = Side::start(Stand::start(builder(), &pipeline).await?).await?;
    let windows = context.profile.pick(6, 12);
    for window in 0..windows {
        // The side that goes first changes, because a window leaves the machine warm.
        if window % 2 == 0 {
            all.measure(context, window).await?;
            none.measure(context, window).await?;
        } else {
            none.measure(context, window).await?;
            all.measure(context, window).await?;
        }
    }
    let bytes = received.load(Ordering::Relaxed);
    if bytes == 0 {
        bail!("no span was received");
    }
    let record = context.record("tracing");
    let record = none.overhead.put("none_", all.overhead.put("all_", record));
    record
        .with("all_blocks_per_s", median(&all.rates).round())
        .with("none_blocks_per_s", median(&none.rates).round())
        .with("all_spread", spread(&all.rates).to_vec())
        .with("none_spread", spread(&none.rates).to_vec())
        .ratio("overhead_ratio", "all_p50_ms", "none_p50_ms")
        .ratio("throughput_ratio", "all_blocks_per_s", "none_blocks_per_s")
        .with("bytes_received", bytes)
        .publish()
}

/// One of the two deployments, and its measurements.
struct Side {
    stand: Stand,
    overhead: Windows,
    rates: Vec<f64>,
}

impl Side {
    async fn start(mut stand: Stand) -> anyhow::Result<Self> {
        stand.run(500, Arrivals::AtOnce).await?;
        Ok(Self {
            stand,
            overhead: Windows::default(),
            rates: Vec::new(),
        })
    }

    async fn measure(&mut self, context: &Context, window: u64) -> anyhow::Result<()> {
        let arrivals = Arrivals::Rate {
            per_second: RATE,
            seed: context.seed.wrapping_add(window),
        };
        let seconds = context.profile.pick(4.0, 15.0);
        let records = self.stand.run((RATE * seconds) as u64, arrivals).await?;
        self.overhead.push(stand::overheads(&records)?);
        let numbers = self.stand.known(context.profile.pick(3_000, 10_000)).await?;
        let listed: Vec<u64> = numbers.clone().collect();
        self.stand.publish(&listed, Arrivals::AtOnce).await?;
        let records = self.stand.emitted(numbers, PATIENCE).await?;
        self.rates.push(steady_rate(&stand::stored_times(&records)));
        Ok(())
    }
}

/// Starts a receiver of OTLP over HTTP, which lives as long as the returned tasks. Returns its address and the count of
/// bytes that it takes.
async fn receive() -> anyhow::Result<(String, Arc<AtomicU64>, JoinSet<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let received = Arc::new(AtomicU64::new(0));
    let counted = received.clone();
    let mut receiver = JoinSet::new();
    receiver.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((connection, _)) = listener.accept().await {
            let counted = counted.clone();
            open.spawn(async move { drop(take(connection, &counted).await) });
        }
    });
    Ok((format!("http://{address}"), received, receiver))
}

/// Takes the requests of one connection.
async fn take(connection: TcpStream, counted: &AtomicU64) -> anyhow::Result<()> {
    let mut connection = BufReader::new(connection);
    let mut body = Vec::new();
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if connection.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse::<usize>().context("a length")?;
            }
            if line.is_empty() {
                break;
            }
        }
        body.resize(length, 0);
        connection.read_exact(&mut body).await?;
        counted.fetch_add(length as u64, Ordering::Relaxed);
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        connection.write_all(answer.as_bytes()).await?;
    }
}
