//! A component that connects to servers. The option `by` selects how it connects, and `address` is the server. The component always fails.
//! Its message is `answered` and the server's answer, or `refused` and the error of the host.

mod http;
mod sockets;

use understudy::{Description, Failure, Method, OptionSpec, Plan, Request};

struct Caller;

/// The result of a call: the text of the answer, or of the error.
type Answer = Result<String, String>;

/// A way to connect, as a function.
type Way = fn(&Request) -> Result<Answer, Failure>;

const WAYS: [(&str, Way); 7] = [
    ("tcp", sockets::tcp),
    ("tcp-twice", sockets::twice),
    ("tcp-at-once", sockets::at_once),
    ("lookup", sockets::lookup),
    ("http", http::request),
    ("http-following", http::following),
    ("http-at-once", http::at_once),
];

impl Method for Caller {
    fn describe() -> Description {
        Description::new("caller", env!("CARGO_PKG_VERSION"), "connects to servers")
            .option(OptionSpec::choice("by", WAYS.map(|(name, _)| name)).required().doc("how it connects"))
            .option(
                OptionSpec::choice("when", ["plan", "create", "both"])
                    .default("create")
                    .doc("in which function"),
            )
            .option(
                OptionSpec::text("address")
                    .required()
                    .doc("HOST:PORT, a name, or an http:// or https:// address"),
            )
            .option(
                OptionSpec::text("say").default("").doc("what it sends by TCP, or as the body of a request"),
            )
            .option(OptionSpec::text("authorization").doc("the header of its requests"))
            .option(OptionSpec::text("header").doc("another header of its requests, as `name: value`"))
            .option(OptionSpec::text("method").default("GET").doc("the method of its requests"))
            .option(
                OptionSpec::integer("patience")
                    .doc("how many milliseconds it waits for a response, and for its next bytes"),
            )
            .option(
                OptionSpec::text("other")
                    .default("")
                    .doc("another address, to which it connects the same socket"),
            )
            .option(OptionSpec::text("lookup").default("").doc("a name that it resolves first"))
            .option(
                OptionSpec::integer("pause")
                    .default(0)
                    .doc("how many milliseconds it waits after each 4 KiB of the body of a request"),
            )
            .option(OptionSpec::integer("times").default(1).doc("how many connections it makes"))
    }

    fn plan(request: &Request) -> Result<Plan, Failure> {
        match request.require::<String>("when")?.as_str() {
            "plan" => Err(call(request)?),
            "both" => Ok(Plan { backup: call(request)?.to_string(), ..Plan::default() }),
            _ => Ok(Plan { backup: "caller".to_owned(), ..Plan::default() }),
        }
    }

    fn create(request: &Request, plan: &Plan) -> Result<(), Failure> {
        Err(Failure::failed(format!("{}; {}", plan.backup, call(request)?)))
    }
}

fn call(request: &Request) -> Result<Failure, Failure> {
    let by: String = request.require("by")?;
    let Some((_, way)) = WAYS.iter().find(|(name, _)| *name == by) else {
        return Err(Failure::failed(format!("`{by}` is not a known way to connect")));
    };
    Ok(Failure::failed(match way(request)? {
        Ok(answer) => format!("answered: {answer}"),
        Err(error) => format!("refused: {error}"),
    }))
}

/// Returns the bytes as quoted text, or only their number if the text is longer than 200 bytes.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.len() <= 200 { format!("{text:?}") } else { format!("{} bytes", bytes.len()) }
}

understudy::export!(Caller);
