//! Tests of the pool against real servers, by the number of opened connections.

use super::*;
use axum::{Router, body::Body, extract::Path, response::Response, routing::post};
use hyper_rustls::HttpsConnectorBuilder;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

const ENOUGH: usize = 1024 * 1024;

/// Answers with the status and the number of bytes named in the path.
async fn answer(Path((status, len)): Path<(u16, usize)>) -> Response {
    // The body comes in pieces and without a length, as nodes send long answers.
    let piece = Bytes::from(vec![b'x'; 1000]);
    let pieces = (0..len / 1000).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
    let mut response = Response::new(Body::from_stream(futures::stream::iter(pieces)));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

/// Starts a server of `answer`. Returns connections to the server, and its tasks.
async fn server() -> (Connections, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let connections = connections(&listener);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let router = Router::new().route("/{status}/{len}", post(answer));
        axum::serve(listener, router).await.expect("it serves");
    });
    (connections, tasks)
}

fn connections(listener: &TcpListener) -> Connections {
    let address = listener.local_addr().expect("an address");
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    let endpoint = format!("http://{address}/").parse().expect("a URI");
    let opened = IntCounter::new("opened", "Connections opened.").expect("a counter");
    Connections::new(connector, endpoint, opened)
}

fn request(path: &str) -> Request<Full<Bytes>> {
    let request = Request::post(path).header("host", "node");
    request
        .body(Full::new(Bytes::from_static(b"{}")))
        .expect("a request")
}

async fn asked(connections: &Connections, path: &str) -> Result<(u16, usize), String> {
    let answer = connections.exchange(&request(path), ENOUGH).await;
    let answer = answer.map_err(|error| error.to_string())?;
    Ok((answer.0.as_u16(), answer.1.len()))
}

#[tokio::test]
async fn a_thousand_requests_at_once_share_a_few_connections() {
    let (connections, _server) = server().await;
    let asked = futures::future::join_all((0..1000).map(|_| asked(&connections, "/200/20000")));
    assert!(asked.await.into_iter().all(|answer| answer == Ok((200, 20_000))));
    assert_eq!(connections.opened.get(), CONNECTIONS_MAX as u64);
}

#[tokio::test]
async fn a_connection_is_kept_after_an_error_whose_body_was_read() {
    let (connections, _server) = server().await;
    for (path, answer) in [
        ("/200/1000", (200, 1000)),
        ("/429/5000", (429, 5000)),
        ("/502/30000", (502, 30_000)),
        ("/404/0", (404, 0)),
        ("/200/900000", (200, 900_000)),
    ] {
        assert_eq!(asked(&connections, path).await, Ok(answer), "{path}");
    }
    assert_eq!(connections.opened.get(), 1);
}

#[tokio::test]
async fn what_is_too_large_costs_its_connection_and_no_more() {
    let (connections, _server) = server().await;
    let said = asked(&connections, "/200/2000000").await.expect_err("too large");
    assert_eq!(
        said,
        "an answer of more than 1 MiB, the limit source.answer_max_mib"
    );
    // The long body of an error is not read to its end.
    assert_eq!(asked(&connections, "/500/2000000").await, Ok((500, 0)));
    assert_eq!(asked(&connections, "/200/1000").await, Ok((200, 1000)));
    assert_eq!(connections.opened.get(), 3);
}

#[tokio::test]
async fn a_connection_that_the_other_side_closed_is_replaced_within_the_same_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let connections = connections(&listener);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // Answers one request, then closes the connection without notice.
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.expect("a request");
            assert!(read > 0);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.expect("the answer is sent");
        }
    });
    for _ in 0..3 {
        assert_eq!(asked(&connections, "/").await, Ok((200, 2)));
    }
    assert_eq!(connections.opened.get(), 3);
}

#[tokio::test]
async fn a_request_that_is_given_up_takes_its_connection_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let connections = connections(&listener);
    let request = request("/");
    for opened in 1..=2 {
        let exchange = connections.exchange(&request, ENOUGH);
        let given_up = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let read = stream.read(&mut [0; 1024]).await.expect("a request");
            assert!(read > 0);
            stream
        };
        let mut stream = tokio::select! {
            _ = exchange => unreachable!("nobody answers"),
            stream = given_up => stream,
        };
        assert_eq!(stream.read(&mut [0; 16]).await.ok(), Some(0), "it is closed");
        assert_eq!(connections.opened.get(), opened);
    }
}
