//! Connections to one endpoint: at most [`CONNECTIONS_MAX`], each kept for the next request.
//!
//! A pool that opens a connection whenever none is idle opens one for nearly every request under load.
//! The machine then runs out of ports, and with TLS each connection costs a handshake. Here a request
//! waits for one of a few places, and takes the connection left there.

use super::answer::ClientError;
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

/// Most connections to the endpoint, and thus most requests in flight.
pub(super) const CONNECTIONS_MAX: usize = 4;
/// Time for which an unused connection is kept: longer than an Ethereum slot, so that the connection
/// serves the next block too; shorter than routers on the way keep silent connections.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Bytes of an error's body read so that its connection can be used again.
const ERROR_BODY_MAX: usize = 64 * 1024;
/// Bytes read ahead on a connection before the answer is consumed.
const BUFFER_MAX: usize = 64 * 1024;

type Driver = http1::Connection<MaybeHttpsStream<TokioIo<TcpStream>>, Full<Bytes>>;

/// Pool of connections to one endpoint.
pub(super) struct Connections {
    connector: HttpsConnector<HttpConnector>,
    endpoint: Uri,
    opened: IntCounter,
    places: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

/// One connection, on which only an exchange reads or writes.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Performs the I/O while awaited; `None` after the connection has ended.
    driver: Option<Driver>,
    used_at: Instant,
}

/// An answer, and whether its connection can carry another request.
struct Answer {
    status: StatusCode,
    body: Bytes,
    is_whole: bool,
}

/// Reasons why an exchange failed.
enum Failure {
    /// No answer has begun. On a kept connection, the other side may merely have closed the connection.
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

    /// Sends a request, possibly more than once, and reads its answer of at most `answer_max` bytes.
    /// Dropping this future early closes the connection, because the answer is still to come.
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
                // The retries end with the kept connections: a failure on a new connection is final.
                Err(Failure::Unanswered(_)) if is_kept => {}
                Err(Failure::Unanswered(error)) => return Err(unreachable(&error)),
                Err(Failure::Answered(error)) => return Err(error),
            }
        }
    }

    /// Takes the most recently used connection, after closing those unused for too long.
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
                // The connection ended, but data already received may complete the exchange.
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
    let body = read(body, ERROR_BODY_MAX).await;
    Ok(Answer {
        status: head.status,
        is_whole: body.is_ok(),
        body: body.unwrap_or_default(),
    })
}

/// Reads a body to its end into one piece of memory, so that an answer is held only once.
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

/// Returns the text of the innermost cause, the most specific one: "connection refused" rather than
/// "client error (Connect)".
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
