//! A component whose `describe` returns too many options and terminal escapes.

use understudy::{Description, Failure, Kind, Method, OptionSpec, Plan, Request};

struct DescribeFloods;

impl Method for DescribeFloods {
    fn describe() -> Description {
        let mut description = Description::new("\u{1b}[2Jflood", "1", "s".repeat(1 << 20));
        for number in 0..20_000 {
            description = description.option(
                OptionSpec::new(format!("option-{number}\nforged"), Kind::Text).doc("d".repeat(1000)),
            );
        }
        description
    }

    fn plan(_: &Request) -> Result<Plan, Failure> {
        Ok(Plan::default())
    }

    fn create(_: &Request, _: &Plan) -> Result<(), Failure> {
        Ok(())
    }
}

understudy::export!(DescribeFloods);
