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
        cell.ratio_to(self.base(cell)?)
    }

    /// What a subject is compared with: itself with the fewest keys where those are varied, else whoever stands first
    /// with as many instances.
    fn base(&self, cell: &Cell) -> Option<&Cell> {
        self.cells.iter().find(|base| {
            let (base, subject) = (&base.subject, &cell.subject);
            base.instances == subject.instances
                && (subject.store.is_none() || base.contender == subject.contender)
        })
    }
}

impl Cell {
    /// A figure over all rounds.
    pub(crate) fn median(&self, figure: impl Fn(&Sample) -> f64) -> Option<Median> {
        median(self.samples.iter().map(figure))
    }

    /// Two figures of the same round, this subject's and another's, made one, over all rounds that both have.
    pub(crate) fn compared(
        &self,
        other: &Self,
        make: impl Fn(&Sample, &Sample) -> f64,
    ) -> Option<Median> {
        let of_round = |round| other.samples.iter().find(|it| it.round == round);
        let pairs = self
            .samples
            .iter()
            .filter_map(|it| Some((it, of_round(it.round)?)));
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
