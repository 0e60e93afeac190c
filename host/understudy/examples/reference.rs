//! Prints the parts of the manual that are made from the tables of the program, as JSON, for `cargo xtask docs`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "another program reads it")]

use understudy::config::reference::parts;

fn main() {
    let parts = parts();
    let parts = parts.iter().map(|part| serde_json::json!([part.page, part.source, part.text]));
    println!("{}", serde_json::Value::from_iter(parts));
}
