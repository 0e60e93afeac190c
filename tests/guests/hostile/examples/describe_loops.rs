//! A component whose `describe` loops forever.

use understudy::{Description, Failure, Method, Plan, Request};

struct DescribeLoops;

impl Method for DescribeLoops {
    fn describe() -> Description {
        let mut round = 0u64;
        loop {
            round = std::hint::black_box(round.wrapping_add(1));
        }
    }

    fn plan(_: &Request) -> Result<Plan, Failure> {
        Ok(Plan::default())
    }

    fn create(_: &Request, _: &Plan) -> Result<(), Failure> {
        Ok(())
    }
}

understudy::export!(DescribeLoops);
