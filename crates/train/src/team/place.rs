//! Where a process stands among those that were started with it, as their launcher tells by variables of the environment.

use std::time::Duration;

use super::TeamError;

/// A launcher's names of: the rank, the number of processes, the rank among those of the machine.
struct Launcher {
    names: [&'static str; 3],
    /// What says that it is this launcher, beside the first two.
    required: Option<&'static str>,
}

const LAUNCHERS: [Launcher; 4] = [
    // torchrun, and `--processes`.
    Launcher { names: ["RANK", "WORLD_SIZE", "LOCAL_RANK"], required: None },
    // Open MPI.
    Launcher { names: ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"], required: None },
    // MPICH and Intel MPI. srun sets the first two as well.
    Launcher { names: ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"], required: Some("MPI_LOCALRANKID") },
    // srun. Not SLURM_NTASKS: a batch script, which is one process, has it too.
    Launcher { names: ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"], required: None },
];

/// The port at which processes meet where no variable says: this, and the last digits of a Slurm job's number.
const PORT: u16 = 15_000;
const PORTS: u32 = 10_000;

/// Where this process stands among all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Number of this process, from 0.
    pub rank: usize,
    /// How many there are.
    pub world: usize,
    /// Among those of this machine.
    pub local_rank: usize,
    /// Where rank 0 serves the store in which they meet.
    pub host: String,
    /// The store's port.
    pub port: u16,
    /// torchrun serves a store there itself. It outlives the processes.
    pub agent: bool,
    /// How long to wait for all to come, and in each call for what the others give.
    pub joining: Duration,
    /// And in each call for what the others give.
    pub call: Duration,
}

impl Place {
    /// What the environment of this process says; none where it was started alone.
    ///
    /// # Errors
    /// A variable that is no number, or a rank that is not among the processes.
    pub fn from_environment() -> Result<Option<Self>, TeamError> {
        Self::from_variables(&|name| std::env::var(name).ok())
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, TeamError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let number = |name: &str| match variable(name) {
            None => Ok(None),
            Some(value) => match value.parse::<usize>() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(TeamError::Variable { name: name.into(), value, expected: "a number".into() }),
            },
        };
        for Launcher { names: [rank, world, local_rank], required } in LAUNCHERS {
            let (Some(nth), Some(all)) = (number(rank)?, number(world)?) else {
                continue;
            };
            if required.is_some_and(|name| variable(name).is_none()) {
                continue;
            }
            if all < 2 {
                return Ok(None);
            }
            let refuse = |name: &str, value: usize, below: usize| {
                let expected = format!("a number below {below}, as many processes as there are");
                Err(TeamError::Variable { name: name.into(), value: value.to_string(), expected })
            };
            if nth >= all {
                return refuse(rank, nth, all);
            }
            let nodes = variable("SLURM_STEP_NODELIST").or_else(|| variable("SLURM_JOB_NODELIST"));
            let job = number("SLURM_JOB_ID")?.unwrap_or(0) as u32 % PORTS;
            let port = number("MASTER_PORT")?.unwrap_or((u32::from(PORT) + job) as usize);
            let Ok(port) = u16::try_from(port) else {
                return refuse("MASTER_PORT", port, usize::from(u16::MAX) + 1);
            };
            let host = variable("MASTER_ADDR").or_else(|| nodes.map(|nodes| first_host(&nodes)));
            return Ok(Some(Self {
                rank: nth,
                world: all,
                local_rank: number(local_rank)?.unwrap_or(0),
                host: host.unwrap_or_else(|| "127.0.0.1".into()),
                port,
                agent: variable("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"),
                joining: JOINING,
                call: CALL,
            }));
        }
        Ok(None)
    }
}

/// All come within this time: a queue may start the last machine much later than the first.
const JOINING: Duration = Duration::from_secs(600);
/// Rank 0 saves, or learns a vocabulary, while the others wait.
const CALL: Duration = Duration::from_secs(1800);

/// `node[003-007,9],other` to `node003`.
fn first_host(list: &str) -> String {
    match list.split_once('[') {
        Some((name, rest)) if !name.contains(',') => {
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
            format!("{name}{}", digits.unwrap_or_default())
        }
        _ => list.split(',').next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<Place>, String> {
        let found = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned());
        Place::from_variables(&found).map_err(|error| error.to_string())
    }

    fn numbers(variables: &[(&str, &str)]) -> [usize; 3] {
        let place = of(variables).unwrap().unwrap();
        [place.rank, place.world, place.local_rank]
    }

    #[test]
    fn every_launcher_is_understood() {
        let torchrun = [
            ("RANK", "5"),
            ("WORLD_SIZE", "8"),
            ("LOCAL_RANK", "1"),
            ("MASTER_ADDR", "big"),
            ("MASTER_PORT", "29400"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
        ];
        let place = of(&torchrun).unwrap().unwrap();
        assert_eq!(numbers(&torchrun), [5, 8, 1]);
        assert_eq!((place.host.as_str(), place.port, place.agent), ("big", 29400, true));

        let open_mpi =
            [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_LOCAL_RANK", "1")];
        let place = of(&open_mpi).unwrap().unwrap();
        assert_eq!(numbers(&open_mpi), [1, 2, 1]);
        assert_eq!((place.host.as_str(), place.port, place.agent), ("127.0.0.1", PORT, false));

        let mpich = [("PMI_RANK", "3"), ("PMI_SIZE", "4"), ("MPI_LOCALRANKID", "1")];
        assert_eq!(numbers(&mpich), [3, 4, 1]);

        let srun = [
            ("PMI_RANK", "9"),
            ("PMI_SIZE", "16"),
            ("SLURM_PROCID", "9"),
            ("SLURM_STEP_NUM_TASKS", "16"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_STEP_NODELIST", "gpu[003-004]"),
            ("SLURM_JOB_ID", "123456"),
        ];
        let place = of(&srun).unwrap().unwrap();
        assert_eq!(numbers(&srun), [9, 16, 1]);
        assert_eq!((place.host.as_str(), place.port), ("gpu003", PORT + 3456));
    }

    #[test]
    fn one_process_is_alone() {
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap(), None);
        // The script of a Slurm job.
        assert_eq!(of(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4"), ("SLURM_JOB_ID", "7")]).unwrap(), None);
        assert_eq!(of(&[("RANK", ""), ("WORLD_SIZE", "2")]).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_variable() {
        for (variables, words) in [
            ([("RANK", "two"), ("WORLD_SIZE", "2")], ["RANK", "two"]),
            ([("RANK", "2"), ("WORLD_SIZE", "2")], ["RANK", "below 2"]),
            ([("RANK", "-1"), ("WORLD_SIZE", "2")], ["RANK", "-1"]),
        ] {
            let error = of(&variables).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
        let error = of(&[("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_PORT", "70000")]).unwrap_err();
        assert!(error.contains("MASTER_PORT") && error.contains("65536"), "{error}");
    }

    #[test]
    fn the_first_of_a_list_of_machines() {
        for (list, first) in [
            ("node[003-007,9],other", "node003"),
            ("gpu7", "gpu7"),
            ("a,b", "a"),
            ("a,b[1-2]", "a"),
            ("n[12,14]", "n12"),
        ] {
            assert_eq!(first_host(list), first);
        }
    }
}
