//! A component that imports an interface that the contract does not define.

use understudy::{Description, Failure, Method, Plan, Request};

#[allow(missing_docs, unreachable_pub, unsafe_code, reason = "wit-bindgen writes it")]
mod foreign {
    wit_bindgen::generate!({
        inline: "
            package acme:backdoor@1.2.0;
            interface door { open: func() -> u32; }
            world w { import door; }
        ",
    });
}

struct ForeignImport;

impl Method for ForeignImport {
    fn describe() -> Description {
        Description::new("foreign-import", "1", "imports what the host does not know")
    }

    fn plan(_: &Request) -> Result<Plan, Failure> {
        Ok(Plan { backup: foreign::acme::backdoor::door::open().to_string(), ..Plan::default() })
    }

    fn create(_: &Request, _: &Plan) -> Result<(), Failure> {
        Ok(())
    }
}

understudy::export!(ForeignImport);
