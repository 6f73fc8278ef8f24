//! The health and metrics server on a real socket.

use push0_runtime::{Health, HttpConfig, Shutdown, http, metrics};
use reqwest::StatusCode;

async fn get(server: &http::HttpServer, path: &str) -> (StatusCode, String) {
    let url = format!("http://{}{path}", server.address());
    let response = reqwest::get(url).await.expect("the server answers");
    (
        response.status(),
        response.text().await.expect("the answer is text"),
    )
}

async fn serve(health: Health) -> http::HttpServer {
    let config = HttpConfig {
        listen: Some(([127, 0, 0, 1], 0).into()),
    };
    http::serve(&config, health)
        .await
        .expect("port 0 is free")
        .expect("an address is configured")
}

#[tokio::test]
async fn readiness_follows_the_components_and_liveness_does_not() {
    let shutdown = Shutdown::new();
    let health = Health::new(shutdown.clone());
    let server = serve(health.clone()).await;
    let broker = health.component("broker");

    assert_eq!(get(&server, "/health/live").await.0, StatusCode::OK);
    let (status, body) = get(&server, "/health/ready").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        body,
        r#"{"ready":false,"not_ready":[{"component":"broker","reason":"starting"}]}"#
    );

    broker.ready();
    assert_eq!(
        get(&server, "/health/ready").await,
        (StatusCode::OK, r#"{"ready":true,"not_ready":[]}"#.to_owned())
    );

    shutdown.trigger();
    assert_eq!(
        get(&server, "/health/ready").await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(get(&server, "/health/live").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_scrape_shows_the_services_metrics_and_those_of_the_process() {
    let health = Health::new(Shutdown::new());
    let permissions = health.component("permissions");
    let server = serve(health).await;
    metrics::counter("scraped_total", "Counts.")
        .expect("the metric registers")
        .inc();
    let (status, body) = get(&server, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("\npush0_scraped_total 1\n"), "{body}");
    assert!(body.contains("\nprocess_resident_memory_bytes "), "{body}");
    let refused = "\npush0_component_not_ready{component=\"permissions\"} 1\n";
    assert!(body.contains(refused), "{body}");
    permissions.ready();
    assert!(!get(&server, "/metrics").await.1.contains(refused));
}

#[tokio::test]
async fn an_address_that_is_taken_is_told() {
    let first = serve(Health::new(Shutdown::new())).await;
    let config = HttpConfig {
        listen: Some(first.address()),
    };
    let error = http::serve(&config, Health::new(Shutdown::new())).await;
    let error = error.expect_err("the address is taken").to_string();
    assert_eq!(
        error,
        format!("http.listen: cannot listen on {}", first.address())
    );
}

#[tokio::test]
async fn silent_connections_do_not_keep_a_probe_out() {
    let server = serve(Health::new(Shutdown::new())).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(
            tokio::net::TcpStream::connect(server.address())
                .await
                .expect("it connects"),
        );
    }
    let probe = tokio::time::timeout(std::time::Duration::from_secs(5), get(&server, "/health/live"));
    assert_eq!(probe.await.expect("an answer").0, StatusCode::OK);
}
