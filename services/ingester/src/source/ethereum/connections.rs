//! The connections to one endpoint: at most [`CONNECTIONS_MAX`], each kept for the next request.
//!
//! A pool that opens a connection whenever none is idle at that very moment opens one for nearly every
//! request under load: the machine runs out of ports, and with TLS each costs a handshake. Here a
//! request waits for one of a few places, and takes the connection that was left there.

use super::client::ClientError;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode, Uri,
    body::{Body, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use push0_runtime::metrics::IntCounter;
use std::{
    error::Error,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{net::TcpStream, sync::Semaphore, time::Instant};
use tower_service::Service;

/// How many connections there are at most, and so how many requests are under way.
pub(super) const CONNECTIONS_MAX: usize = 4;
/// How long an unused connection is kept: longer than a slot, shorter than routers on the way keep what
/// is silent.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// How much of an error's body is read so that its connection can be used again.
const ERROR_BODY_MAX: usize = 64 * 1024;
/// How much a connection reads ahead of what takes the answer.
const BUFFER_MAX: usize = 64 * 1024;

type Driver = http1::Connection<MaybeHttpsStream<TokioIo<TcpStream>>, Full<Bytes>>;

/// The connections to one endpoint.
pub(super) struct Connections {
    connector: HttpsConnector<HttpConnector>,
    endpoint: Uri,
    opened: IntCounter,
    places: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

/// One connection. Nothing reads or writes on it but an exchange.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Does the I/O while it is awaited; none when the connection has ended.
    driver: Option<Driver>,
    used_at: Instant,
}

/// What came back, and whether the connection can carry another request.
struct Answer {
    status: StatusCode,
    body: Bytes,
    is_whole: bool,
}

/// Why an exchange failed.
enum Failure {
    /// No answer has begun: on a kept connection that may only mean that the other side closed it.
    Unanswered(hyper::Error),
    Answered(ClientError),
}

impl Connections {
    pub(super) fn new(connector: HttpsConnector<HttpConnector>, endpoint: Uri, opened: IntCounter) -> Self {
        Self {
            connector,
            endpoint,
            opened,
            places: Semaphore::new(CONNECTIONS_MAX),
            idle: Mutex::default(),
        }
    }

    /// Sends a request that may be sent twice, and reads its answer of at most `answer_max` bytes. When
    /// this is dropped before its end the connection is closed: its answer is still to come.
    pub(super) async fn exchange(
        &self,
        request: &Request<Full<Bytes>>,
        answer_max: usize,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        // The semaphore is never closed.
        let _place = self.places.acquire().await;
        loop {
            let kept = self.take();
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.open().await?,
            };
            match connection.exchange(request.clone(), answer_max).await {
                Ok(answer) => {
                    if answer.is_whole && connection.is_open() {
                        connection.used_at = Instant::now();
                        self.idle().push(connection);
                    }
                    return Ok((answer.status, answer.body));
                }
                // Ends with the kept connections: a new one is not tried again.
                Err(Failure::Unanswered(_)) if is_kept => {}
                Err(Failure::Unanswered(error)) => return Err(unreachable(&error)),
                Err(Failure::Answered(error)) => return Err(error),
            }
        }
    }

    /// The connection that was used last. Those that were unused for too long are closed.
    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle();
        idle.retain(|connection| connection.used_at.elapsed() < IDLE_MAX);
        idle.pop()
    }

    async fn open(&self) -> Result<Connection, ClientError> {
        self.opened.inc();
        let mut connector = self.connector.clone();
        let ready = std::future::poll_fn(|context| connector.poll_ready(context)).await;
        ready.map_err(|error| unreachable(error.as_ref()))?;
        let stream = connector.call(self.endpoint.clone()).await;
        let stream = stream.map_err(|error| unreachable(error.as_ref()))?;
        let shaken = http1::Builder::new()
            .max_buf_size(BUFFER_MAX)
            .handshake(stream)
            .await;
        let (sender, driver) = shaken.map_err(|error| unreachable(&error))?;
        Ok(Connection {
            sender,
            driver: Some(driver),
            used_at: Instant::now(),
        })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn is_open(&self) -> bool {
        self.driver.is_some() && !self.sender.is_closed()
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        answer_max: usize,
    ) -> Result<Answer, Failure> {
        let Self { sender, driver, .. } = self;
        let mut exchanged = pin!(ask(sender, request, answer_max));
        if let Some(drive) = driver {
            tokio::select! {
                exchanged = &mut exchanged => return exchanged,
                // What it had read is still to be taken.
                _ = drive => {}
            }
        }
        *driver = None;
        exchanged.await
    }
}

async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    answer_max: usize,
) -> Result<Answer, Failure> {
    sender.ready().await.map_err(Failure::Unanswered)?;
    let response = sender.send_request(request).await;
    let (head, body) = response.map_err(Failure::Unanswered)?.into_parts();
    if head.status.is_success() {
        let body = read(body, answer_max).await.map_err(Failure::Answered)?;
        return Ok(Answer {
            status: head.status,
            body,
            is_whole: true,
        });
    }
    Ok(Answer {
        status: head.status,
        body: Bytes::new(),
        is_whole: read(body, ERROR_BODY_MAX).await.is_ok(),
    })
}

/// Reads a body to its end, into one piece of memory: an answer is held once.
async fn read(mut body: Incoming, max: usize) -> Result<Bytes, ClientError> {
    let said = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if said > max {
        return Err(ClientError::TooLarge(max));
    }
    let mut bytes = BytesMut::with_capacity(said);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| unreachable(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > max {
            return Err(ClientError::TooLarge(max));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

fn unreachable(error: &(dyn Error + 'static)) -> ClientError {
    ClientError::Unreachable(innermost(error))
}

/// The innermost cause says most: "connection refused" rather than "client error (Connect)".
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
