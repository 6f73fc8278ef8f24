//! Export of spans to an OTLP receiver that answers, hangs or is absent.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message as _;
use push0_domain::message::BlockFacts;
use push0_domain::trace::{Trace, TraceContext, publish};
use push0_domain::{BlockHash, BlockRef, PipelineId, Timestamp};
use push0_runtime::config::OtlpProtocol;
use push0_runtime::telemetry::{self, TelemetryGuard};
use push0_runtime::{TelemetryConfig, metrics};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const BOUND: Duration = Duration::from_secs(10);

struct Receiver(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0
            .send(request.into_inner())
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Starts telemetry that sends to a socket held by the test.
async fn towards(protocol: OtlpProtocol) -> (TcpListener, TelemetryGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
    let address = listener.local_addr().expect("a bound socket has an address");
    let config = TelemetryConfig {
        log: "off".to_owned(),
        otlp_endpoint: Some(format!("http://{address}")),
        otlp_protocol: protocol,
        ..TelemetryConfig::default()
    };
    let (_, guard) = telemetry::build("tester", "1.2.3", &config).expect("telemetry starts");
    (listener, guard)
}

async fn flush(guard: TelemetryGuard, timeout: Duration) -> bool {
    spawn_blocking(move || guard.shutdown(timeout))
        .await
        .expect("a flush does not panic")
}

async fn arrival(
    mut received: mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
) -> ExportTraceServiceRequest {
    let request = tokio::time::timeout(BOUND, received.recv()).await;
    request
        .expect("a request arrives in time")
        .expect("the receiver lives")
}

/// Returns the trace of a block that came within another trace.
fn traced() -> Trace {
    let parent = TraceContext {
        traceparent: Some(PARENT.into()),
        ..TraceContext::default()
    };
    parent.of_block(&pipeline(), &block(), Timestamp(1_000_000))
}

fn pipeline() -> PipelineId {
    PipelineId::new("demo").expect("a name")
}

fn block() -> BlockRef {
    BlockRef {
        number: 7,
        hash: BlockHash([7; 32]),
    }
}

fn work(guard: &TelemetryGuard) {
    let span = publish(&traced(), &pipeline(), &block(), &BlockFacts::default());
    guard.sink().expect("traces have a receiver").write(span);
}

fn assert_is_the_work(request: ExportTraceServiceRequest) {
    let [resource_spans] = &request.resource_spans[..] else {
        unreachable!("one resource: {request:?}")
    };
    let resource = resource_spans.resource.as_ref().expect("spans have a resource");
    let attribute = |key: &str| {
        let found = resource.attributes.iter().find(|attribute| attribute.key == key);
        match found.and_then(|attribute| attribute.value.clone()?.value) {
            Some(Value::StringValue(text)) => text,
            other => unreachable!("{key} is {other:?}"),
        }
    };
    assert_eq!(attribute("service.name"), "push0-tester");
    assert_eq!(attribute("service.version"), "1.2.3");
    assert!(!attribute("service.instance.id").is_empty());

    let spans: Vec<_> = resource_spans
        .scope_spans
        .iter()
        .flat_map(|scope| &scope.spans)
        .collect();
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["publish"]);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&spans[0].trace_id), PARENT[3..35]);
    assert_eq!(hex(&spans[0].parent_span_id), traced().root.to_string());
    assert_eq!(spans[0].start_time_unix_nano, 1_000_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_arrives_over_grpc() {
    let (listener, guard) = towards(OtlpProtocol::Grpc).await;
    let (sender, received) = mpsc::unbounded_channel();
    let mut server = JoinSet::new();
    server.spawn(
        tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Receiver(sender)))
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    work(&guard);
    assert!(flush(guard, BOUND).await, "all spans left");
    assert_is_the_work(arrival(received).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_span_arrives_over_http() {
    let (listener, guard) = towards(OtlpProtocol::Http).await;
    let (sender, received) = mpsc::unbounded_channel();
    let receive = move |body: Bytes| async move {
        let request = ExportTraceServiceRequest::decode(body).expect("the body is protobuf");
        sender.send(request).expect("the test waits");
        let response = ExportTraceServiceResponse::default().encode_to_vec();
        ([(CONTENT_TYPE, "application/x-protobuf")], response)
    };
    let mut server = JoinSet::new();
    server
        .spawn(async move { axum::serve(listener, Router::new().route("/v1/traces", post(receive))).await });
    work(&guard);
    assert!(flush(guard, BOUND).await, "all spans left");
    assert_is_the_work(arrival(received).await);
}

/// Records more spans than the queue takes. Returns the time for recording, and the time for a flush
/// bounded to 1 s.
async fn overwhelm(guard: TelemetryGuard) -> (Duration, Duration) {
    let begin = Instant::now();
    (0..20_000).for_each(|_| work(&guard));
    let spent = begin.elapsed();
    let begin = Instant::now();
    flush(guard, Duration::from_secs(1)).await;
    println!("20000 spans took {spent:?}, the flush {:?}", begin.elapsed());
    (spent, begin.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_receiver_costs_the_work_nothing_and_the_end_is_bounded() {
    let lost = metrics::counter(
        "spans_lost_total",
        "Spans lost in exports that failed or timed out, to a receiver that has taken spans before.",
    )
    .expect("the metric is the runtime's");
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::Http] {
        let (listener, guard) = towards(protocol).await;
        drop(listener);
        let before = lost.get();
        let (spent, flush) = overwhelm(guard).await;
        assert!(spent < Duration::from_secs(2), "spans took {spent:?}");
        assert!(flush < Duration::from_secs(3), "the flush took {flush:?}");
        assert_eq!(lost.get(), before, "nobody waits for the spans");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_never_answers_costs_the_work_nothing_and_the_end_is_bounded() {
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::Http] {
        // The kernel accepts the connection, but the test never reads from it.
        let (_listener, guard) = towards(protocol).await;
        let (spent, flush) = overwhelm(guard).await;
        assert!(spent < Duration::from_secs(2), "spans took {spent:?}");
        assert!(flush < Duration::from_secs(3), "the flush took {flush:?}");
    }
}
