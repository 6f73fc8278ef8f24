//! A proxy in front of a node that changes questions and answers as a test asks.

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::task::JoinSet;

/// One answer of the proxy.
pub(crate) enum Reply {
    /// The answer of the node to the question, which may have been changed.
    Node,
    /// The answer of the node after this time.
    Late(Duration),
    /// This result in place of the node's.
    Result(Value),
    /// An HTTP status without a result.
    Status(u16),
}

type Asked = Box<dyn FnMut(&mut Value) -> Reply + Send>;
type Answered = Box<dyn FnMut(&Value, &mut Value) + Send>;

#[derive(Clone)]
struct Rules {
    node: Arc<Mutex<String>>,
    asked: Arc<Mutex<Asked>>,
    answered: Arc<Mutex<Answered>>,
}

/// A proxy on a free port. At first it changes nothing.
pub(crate) struct NodeProxy {
    pub(crate) url: String,
    rules: Rules,
    _server: JoinSet<()>,
}

impl NodeProxy {
    pub(crate) async fn to(node: &str) -> Self {
        let rules = Rules {
            node: Arc::new(Mutex::new(node.to_owned())),
            asked: Arc::new(Mutex::new(Box::new(|_| Reply::Node))),
            answered: Arc::new(Mutex::new(Box::new(|_, _| {}))),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().route("/", post(answer)).with_state(rules.clone());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self {
            url,
            rules,
            _server: server,
        }
    }

    /// Asks another node from now on.
    pub(crate) fn point_to(&self, node: &str) {
        node.clone_into(&mut self.rules.node.lock().expect("not poisoned"));
    }

    /// Sets how questions are treated. The rule may change a question before the node gets it.
    pub(crate) fn on_question(&self, rule: impl FnMut(&mut Value) -> Reply + Send + 'static) {
        *self.rules.asked.lock().expect("not poisoned") = Box::new(rule);
    }

    /// Sets how the node's results are changed.
    pub(crate) fn on_result(&self, mut rule: impl FnMut(&mut Value) + Send + 'static) {
        self.on_answer(move |_, result| rule(result));
    }

    /// Sets how the node's results are changed, given their questions.
    pub(crate) fn on_answer(&self, rule: impl FnMut(&Value, &mut Value) + Send + 'static) {
        *self.rules.answered.lock().expect("not poisoned") = Box::new(rule);
    }
}

/// Returns whether a question asks for the newest block.
pub(crate) fn asks_for_head(question: &Value) -> bool {
    question["params"][0] == json!("latest")
}

/// Returns whether a question asks for a block with its transactions.
pub(crate) fn asks_in_full(question: &Value) -> bool {
    question["params"][1] == json!(true)
}

/// Returns whether a question asks for the block of this number.
pub(crate) fn asks_for(question: &Value, number: u64) -> bool {
    question["params"][0] == json!(format!("{number:#x}"))
}

async fn answer(State(rules): State<Rules>, body: Bytes) -> (StatusCode, String) {
    let mut question: Value = serde_json::from_slice(&body).expect("JSON");
    let reply = rules.asked.lock().expect("not poisoned")(&mut question);
    match reply {
        Reply::Node => {}
        // wait: the test asks for this delay.
        Reply::Late(delay) => tokio::time::sleep(delay).await,
        Reply::Result(result) => {
            let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": result });
            return (StatusCode::OK, answer.to_string());
        }
        Reply::Status(code) => return (StatusCode::from_u16(code).expect("a status"), String::new()),
    }
    let node = rules.node.lock().expect("not poisoned").clone();
    let asked = reqwest::Client::new().post(node).json(&question);
    let Ok(answer) = asked.send().await else {
        return (StatusCode::BAD_GATEWAY, String::new());
    };
    let mut answer: Value = answer.json().await.expect("JSON");
    rules.answered.lock().expect("not poisoned")(&question, &mut answer["result"]);
    (StatusCode::OK, answer.to_string())
}
