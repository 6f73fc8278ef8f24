//! A receiver of OTLP inside the test, over gRPC and over HTTP.

use axum::{Router, body::Bytes, http::header::CONTENT_TYPE, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
};
use prost::Message as _;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

/// A span as received.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) service: String,
    pub(super) name: String,
    pub(super) trace: String,
    pub(super) id: String,
    /// Id of the parent span; empty for a root.
    pub(super) parent: String,
    pub(super) outcome: Option<String>,
}

/// All received spans, shared with the receiver.
#[derive(Clone, Debug, Default)]
pub(super) struct Spans(Arc<Mutex<Vec<Seen>>>);

impl Spans {
    pub(super) fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self, request: ExportTraceServiceRequest) {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for of_resource in request.resource_spans {
            let attributes = of_resource.resource.map(|r| r.attributes).unwrap_or_default();
            let service = text(&attributes, "service.name").unwrap_or_default();
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(Seen {
                    service: service.clone(),
                    outcome: text(&span.attributes, "outcome"),
                    name: span.name,
                    trace: hex::encode(span.trace_id),
                    id: hex::encode(span.span_id),
                    parent: hex::encode(span.parent_span_id),
                });
            }
        }
    }
}

fn text(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Starts a gRPC receiver and returns its endpoint.
pub(super) async fn over_grpc(spans: &Spans) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
    let address = listener.local_addr().expect("a bound socket has an address");
    let service = TraceServiceServer::new(spans.clone());
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    format!("http://{address}")
}

/// Starts an HTTP receiver and returns its endpoint.
pub(super) async fn over_http(spans: &Spans) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
    let address = listener.local_addr().expect("a bound socket has an address");
    let spans = spans.clone();
    let take = move |body: Bytes| async move {
        spans.take(ExportTraceServiceRequest::decode(body).expect("OTLP"));
        let answer = ExportTraceServiceResponse::default().encode_to_vec();
        ([(CONTENT_TYPE, "application/x-protobuf")], answer)
    };
    let router = Router::new().route("/v1/traces", post(take));
    tokio::spawn(axum::serve(listener, router).into_future());
    format!("http://{address}")
}
