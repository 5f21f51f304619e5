//! Where a run computes: a device, and the processes that share the work. Alone, it is a team of one.

use std::sync::Arc;

use anyhow::{Error, Result, bail};
use simla_train::team::Place;
use simla_train::torch::device;
use simla_train::{Team, TeamError, TrainError};
use tch::Device;

use crate::{console, say};

/// A process's device, and the others of its run. Copies are of the same team.
#[derive(Debug, Clone)]
pub struct Compute {
    /// This process's.
    pub device: Device,
    /// All processes of the run.
    pub team: Arc<Team>,
}

impl Compute {
    /// One process.
    pub fn alone(device: Device) -> Self {
        Self { device, team: Arc::new(Team::alone()) }
    }

    /// What this process was started as, by the variables of a launcher: alone, or among others, for whom it waits. Of several, the first
    /// has the run's voice: from here on the others say nothing.
    ///
    /// # Errors
    /// A device that cannot be opened, variables that cannot be, or processes that do not come.
    pub fn join(device: &str) -> Result<Self> {
        let Some(place) = Place::from_environment()? else {
            return Ok(Self::alone(device::open(device)?));
        };
        let device = device::open_nth(device, place.local_rank)?;
        let team = Team::join(&place, device)?;
        match team.is_first() {
            true => say!("{} processes train together", team.world()),
            false => console::silence(),
        }
        Ok(Self { device, team: Arc::new(team) })
    }

    /// Whether a launcher has started this process as one of `asked`.
    ///
    /// # Errors
    /// If it has started another number.
    pub fn is_launched(asked: usize) -> Result<bool> {
        let Some(place) = Place::from_environment()? else {
            return Ok(false);
        };
        if place.world != asked {
            bail!(
                "--processes {asked}: a launcher has started this as one of {} processes; leave --processes out",
                place.world
            );
        }
        Ok(true)
    }
}

/// Whether another process of the run says the same.
pub fn is_said_elsewhere(error: &Error) -> bool {
    let team = match error.downcast_ref::<TrainError>() {
        Some(TrainError::Team(team)) => Some(team),
        _ => error.downcast_ref::<TeamError>(),
    };
    team.is_some_and(TeamError::is_said_elsewhere)
}
