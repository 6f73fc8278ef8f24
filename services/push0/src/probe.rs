//! Health and metrics requests to services on this machine.

use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

/// Time limit for an answer. Services answer these requests from memory.
const PATIENCE: Duration = Duration::from_secs(2);
/// Largest part of an answer that is read, in bytes. Metrics have some tens of KiB.
const ANSWER_MAX: u64 = 4 << 20;

/// HTTP answer of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Sends GET `path` to a service and returns the answer.
pub(crate) async fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        // With HTTP/1.0 the answer is not chunked and ends with the connection.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
        parse(&String::from_utf8_lossy(&answer))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
    };
    tokio::time::timeout(PATIENCE, ask).await?
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer {
        status,
        body: body.to_owned(),
    })
}

/// Checks whether a service is ready; the error says why not.
pub(crate) async fn ready(address: SocketAddr) -> Result<(), String> {
    match get(address, "/health/ready").await {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(reasons(&answer.body)),
        Err(error) => Err(format!("no answer ({error})")),
    }
}

/// Checks several services at the same time: hung ones take the time of one. Returns the answers in the order of the
/// addresses.
pub(crate) async fn all_ready(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<Result<(), String>> {
    let mut asked = JoinSet::new();
    for (place, address) in addresses.into_iter().enumerate() {
        asked.spawn(async move { (place, ready(address).await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn reasons(body: &str) -> String {
    let parsed: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let reasons: Vec<String> = parsed["not_ready"]
        .as_array()
        .into_iter()
        .flatten()
        .map(reason)
        .collect();
    if reasons.is_empty() {
        body.trim().chars().take(200).collect()
    } else {
        reasons.join(", ")
    }
}

fn reason(not_ready: &serde_json::Value) -> String {
    let text = |key: &str| not_ready[key].as_str().unwrap_or("?");
    format!("{}: {}", text("component"), text("reason"))
}

/// Returns the resident memory of a service in bytes; `None` if it does not answer or has no such metric.
pub(crate) async fn resident_bytes(address: SocketAddr) -> Option<f64> {
    let answer = get(address, "/metrics").await.ok()?;
    metric(&answer.body, "process_resident_memory_bytes")
}

fn metric(text: &str, name: &str) -> Option<f64> {
    let line = text
        .lines()
        .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hung_services_are_asked_at_the_same_time() {
        let listen = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let hung = [listen(), listen(), listen()];
        let addresses = hung.iter().map(|hung| hung.local_addr().unwrap());
        let began = std::time::Instant::now();
        let answers = all_ready(addresses).await;
        assert!(
            answers.len() == 3 && answers.iter().all(Result::is_err),
            "{answers:?}"
        );
        assert!(began.elapsed() < 2 * PATIENCE, "{:?}", began.elapsed());
    }

    #[test]
    fn an_answer_is_understood() {
        let answer = parse("HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\nbody").unwrap();
        assert_eq!(
            answer,
            Answer {
                status: 503,
                body: "body".into()
            }
        );
        assert_eq!(parse("SSH-2.0"), None);
        let body = r#"{"ready":false,"not_ready":[{"component":"broker","reason":"lost"}]}"#;
        assert_eq!(reasons(body), "broker: lost");
        assert_eq!(reasons("busy\n"), "busy");
        assert_eq!(metric("# HELP a_b\na_bc 1\na_b 2e6\n", "a_b"), Some(2e6));
        assert_eq!(metric("", "a_b"), None);
    }
}
