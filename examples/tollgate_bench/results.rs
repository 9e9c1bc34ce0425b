//! All that one run measured, and the figures that are read off it.

use anyhow::Result;

use crate::footprint::{self, Footprint};
use crate::in_process::{self, InProcess};
use crate::measure::{Cell, Measured, Sample, measure};
use crate::plan::Plan;
use crate::scenario;
use crate::service::Programs;
use crate::statistics::{Median, median};

pub(crate) const MEBIBYTE: f64 = 1_048_576.0;

/// All that one run measured.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) scenarios: Vec<Measured>,
    pub(crate) footprints: Vec<Footprint>,
    pub(crate) in_process: Vec<InProcess>,
    pub(crate) missing: Vec<&'static str>,
}

impl Results {
    /// Measures everything.
    pub(crate) async fn gather(plan: &Plan, programs: &Programs, only: &[String]) -> Result<Self> {
        let wanted = |name: &str| only.is_empty() || only.iter().any(|it| it == name);
        let mut results = Self {
            scenarios: Vec::new(),
            footprints: Vec::new(),
            in_process: Vec::new(),
            missing: programs.peers.missing(),
        };
        if wanted("in-process") {
            eprintln!("in process: memory and governor");
            let plan = *plan;
            let measured = tokio::task::spawn_blocking(move || in_process::measure(&plan));
            results.in_process = measured.await??;
        }
        if wanted("idle") {
            eprintln!("idle: {} starts", plan.starts);
            results.footprints = footprint::measure(plan, programs).await?;
        }
        for scenario in scenario::all(&programs.peers, plan.quick) {
            if wanted(scenario.name) {
                results
                    .scenarios
                    .push(measure(scenario, plan, programs).await?);
            }
        }
        Ok(results)
    }

    pub(crate) fn scenario(&self, name: &str) -> Option<&Measured> {
        self.scenarios.iter().find(|it| it.scenario.name == name)
    }

    /// How much longer the same work took in the median turn than in the fastest.
    pub(crate) fn slowed(&self) -> Option<f64> {
        let cells = self.scenarios.iter().flat_map(|it| &it.cells);
        let took: Vec<f64> = cells
            .flat_map(|cell| cell.samples.iter().map(|it| it.yardstick_us))
            .collect();
        let fastest = took.iter().copied().min_by(f64::total_cmp)?;
        Some(median(took)?.middle / fastest)
    }

    /// A subject by its name.
    pub(crate) fn cell(&self, scenario: &str, subject: &str) -> Option<&Cell> {
        self.scenario(scenario)?.cell(subject)
    }
}

impl Measured {
    pub(crate) fn cell(&self, subject: &str) -> Option<&Cell> {
        self.cells
            .iter()
            .find(|cell| cell.subject.name() == subject)
    }

    /// CPU time against what the subject is compared with.
    pub(crate) fn ratio(&self, cell: &Cell) -> Option<Median> {
        let i = self.cells.iter().position(|it| std::ptr::eq(it, cell))?;
        cell.ratio_to(&self.cells[self.scenario.base(i)])
    }
}

impl Cell {
    /// A figure over all rounds.
    pub(crate) fn median(&self, figure: impl Fn(&Sample) -> f64) -> Option<Median> {
        median(self.samples.iter().map(figure))
    }

    /// Each of this subject's figures with the other's that was measured nearest to it, the earlier of two, made one.
    pub(crate) fn compared(
        &self,
        other: &Self,
        make: impl Fn(&Sample, &Sample) -> f64,
    ) -> Option<Median> {
        let nearest = |turn| {
            let others = other.samples.iter();
            others.min_by_key(|it: &&Sample| it.turn.abs_diff(turn))
        };
        let pairs = self
            .samples
            .iter()
            .filter_map(|it| Some((it, nearest(it.turn)?)));
        median(pairs.map(|(it, other)| make(it, other)))
    }

    /// CPU time against another's.
    pub(crate) fn ratio_to(&self, base: &Self) -> Option<Median> {
        self.compared(base, |it, base| it.cpu_us() / base.cpu_us())
    }

    /// Most resident memory of the service until the last round, in MiB.
    pub(crate) fn peak_mib(&self) -> Option<f64> {
        let peak = self.samples.iter().map(|sample| sample.peak).max()?;
        Some(peak as f64 / MEBIBYTE)
    }

    pub(crate) fn sum(&self, figure: impl Fn(&Sample) -> u64) -> u64 {
        self.samples.iter().map(figure).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Peers;
    use crate::subject::{Contender, Quota, Subject};

    #[test]
    fn how_much_slower_than_at_best_a_turn_was_in_the_median() {
        let subject = Subject::new(Contender::Served("bare"), Quota::Ample, 1);
        let mut cell = Cell::of(&subject).unwrap();
        cell.samples = [3.0, 2.0, 8.0]
            .map(|yardstick_us| Sample {
                yardstick_us,
                ..Sample::default()
            })
            .into();
        let scenario = crate::scenario::all(&Peers::find(), true).remove(0);
        let cells = vec![cell];
        let mut results = Results {
            scenarios: vec![Measured { scenario, cells }],
            footprints: Vec::new(),
            in_process: Vec::new(),
            missing: Vec::new(),
        };
        assert_eq!(results.slowed(), Some(1.5));
        results.scenarios.clear();
        assert_eq!(results.slowed(), None);
    }

    #[test]
    fn each_sample_is_compared_with_the_one_measured_nearest_to_it() {
        let cell = |samples: &[(usize, f64)]| {
            let subject = Subject::new(Contender::Served("bare"), Quota::Ample, 1);
            let mut cell = Cell::of(&subject).unwrap();
            cell.samples = samples
                .iter()
                .map(|&(turn, service_us)| Sample {
                    turn,
                    service_us,
                    ..Sample::default()
                })
                .collect();
            cell
        };
        let base = cell(&[(0, 1.0), (2, 10.0), (4, 100.0)]);
        // Twice what stood right before each, though another stood right after.
        let ratio = cell(&[(1, 2.0), (3, 20.0), (5, 200.0)]).ratio_to(&base);
        let ratio = ratio.unwrap();
        assert_eq!((ratio.lower, ratio.upper), (2.0, 2.0));
        assert!(base.ratio_to(&cell(&[])).is_none());
    }
}
