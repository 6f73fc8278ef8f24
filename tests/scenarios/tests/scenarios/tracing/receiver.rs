//! A receiver of OTLP inside the test, over gRPC and over HTTP.

use super::tree::Seen;
use axum::{Router, body::Bytes, http::header::CONTENT_TYPE, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, status::StatusCode},
};
use prost::Message as _;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

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
            let resource = of_resource.resource.map(|r| r.attributes).unwrap_or_default();
            let service = texts(resource).remove("service.name").unwrap_or_default();
            let sent = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(sent.map(|span| seen(&service, span)));
        }
    }
}

fn seen(service: &str, span: Span) -> Seen {
    let links = span.links.into_iter();
    Seen {
        service: service.to_owned(),
        attributes: texts(span.attributes),
        name: span.name,
        trace: hex::encode(span.trace_id),
        id: hex::encode(span.span_id),
        parent: hex::encode(span.parent_span_id),
        start_us: span.start_time_unix_nano / 1000,
        end_us: span.end_time_unix_nano / 1000,
        is_error: span
            .status
            .is_some_and(|status| status.code() == StatusCode::Error),
        events: span.events.into_iter().map(|event| event.name).collect(),
        links: links
            .map(|link| (hex::encode(link.trace_id), hex::encode(link.span_id)))
            .collect(),
        warnings: Vec::new(),
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let told = attributes.into_iter();
    told.filter_map(|told| Some((told.key, text(told.value?.value?))))
        .collect()
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
