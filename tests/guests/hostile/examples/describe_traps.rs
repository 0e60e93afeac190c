//! A component whose `describe` traps.

use understudy::{Description, Failure, Method, Plan, Request};

struct DescribeTraps;

impl Method for DescribeTraps {
    fn describe() -> Description {
        std::process::abort()
    }

    fn plan(_: &Request) -> Result<Plan, Failure> {
        Ok(Plan::default())
    }

    fn create(_: &Request, _: &Plan) -> Result<(), Failure> {
        Ok(())
    }
}

understudy::export!(DescribeTraps);
