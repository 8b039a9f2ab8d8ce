// sand_100k, sand_1m, sand_heavy (--as): grains of sand fall and pile up; as b_sand.c.
mod bench;
use bench::*;
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

const SIDE: i32 = 1000;
const SPAWNED: usize = 2000;
const GRAVITY: f32 = -20.0;
const DT: f32 = 0.016;

struct Grain {
    x: f32,
    y: f32,
    vx: f32,
    vy: f32,
    is_active: bool,
}

struct Sand {
    grains: Vec<Grain>,
    capacity: usize,
    seed: u64,
    is_heavy: bool,
    grid: Vec<AtomicBool>,
}

/// The cell's number; None for what is outside.
fn cell(x: f32, y: f32) -> Option<usize> {
    let (column, row) = ((x + 500.0) as i32, y as i32);
    ((0..SIDE).contains(&column) && (0..SIDE).contains(&row)).then_some((row * SIDE + column) as usize)
}

impl Sand {
    fn new(capacity: usize, is_heavy: bool) -> Sand {
        let grid = (0..SIDE * SIDE).map(|_| AtomicBool::new(false)).collect();
        Sand { grains: Vec::with_capacity(capacity), capacity, seed: 1, is_heavy, grid }
    }

    /// From `low` up to `high` (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
    fn random(&mut self, low: f32, high: f32) -> f32 {
        self.seed = self.seed.wrapping_add(0x9e3779b97f4a7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d049bb133111eb);
        low + (high - low) * (((z ^ (z >> 31)) >> 40) as f32 * (1.0 / 16777216.0))
    }

    fn spawn(&mut self, count: usize) {
        for _ in 0..count.min(self.capacity - self.grains.len()) {
            let (x, y) = (self.random(-100.0, 100.0), self.random(800.0, 950.0));
            let (vx, vy) = (self.random(-10.0, 10.0), self.random(-10.0, 0.0));
            self.grains.push(Grain { x, y, vx, vy, is_active: true });
        }
    }

    fn mark(grid: &[AtomicBool], grain: &Grain) {
        if grain.is_active {
            if let Some(at) = cell(grain.x, grain.y) {
                grid[at].store(true, Relaxed);
            }
        }
    }

    fn step_parallel(&mut self) {
        self.spawn(SPAWNED);
        let (grid, is_heavy) = (&self.grid, self.is_heavy);
        grid.par_iter().for_each(|cell| cell.store(false, Relaxed));
        self.grains.par_iter().for_each(|grain| Sand::mark(grid, grain));
        self.grains.par_iter_mut().for_each(|grain| grain.update(grid, is_heavy));
    }

    fn step_serial(&mut self) {
        self.spawn(SPAWNED);
        let (grid, is_heavy) = (&self.grid, self.is_heavy);
        grid.iter().for_each(|cell| cell.store(false, Relaxed));
        self.grains.iter().for_each(|grain| Sand::mark(grid, grain));
        self.grains.iter_mut().for_each(|grain| grain.update(grid, is_heavy));
    }

    fn checksum(&self) -> u64 {
        let of = |grain: &Grain| {
            let numbers = [grain.x, grain.y, grain.vx, grain.vy];
            numbers.iter().fold(0u64, |sum, number| sum.wrapping_mul(1_000_003).wrapping_add(number.to_bits() as u64))
        };
        let sums = self.grains.iter().enumerate().map(|(i, grain)| of(grain).wrapping_mul(2 * i as u64 + 1));
        sums.fold(0, u64::wrapping_add)
    }
}

impl Grain {
    fn update(&mut self, grid: &[AtomicBool], is_heavy: bool) {
        if !self.is_active {
            return;
        }
        self.fall(grid);
        if is_heavy {
            let mut v = self.vx;
            for _ in 0..200 {
                v = v.sin() + v.cos();
            }
            self.vx += v * 1e-6;
        }
    }

    fn fall(&mut self, grid: &[AtomicBool]) {
        self.vy += GRAVITY * DT;
        let (x, y) = (self.x + self.vx * DT, self.y + self.vy * DT);
        if y <= 0.0 {
            self.y = 0.0;
            self.vy = 0.0;
            self.vx *= 0.5;
        } else if let Some(next) = cell(x, y) {
            let here = cell(self.x, self.y);
            if here != Some(next) && grid[next].load(Relaxed) {
                self.slide(grid);
            } else {
                self.x = x;
                self.y = y;
            }
        } else {
            self.x = x.max(-400.0).min(400.0);
            self.y = y.max(0.0);
        }
    }

    /// The way down is taken: goes down to the left or to the right, or stays.
    fn slide(&mut self, grid: &[AtomicBool]) {
        let is_free =
            |dx: f32| cell(self.x + dx, self.y - 1.0).map_or(false, |at| self.y >= 1.0 && !grid[at].load(Relaxed));
        let (left, right) = (is_free(-1.0), is_free(1.0));
        if !left && !right {
            self.vx = 0.0;
            self.vy = 0.0;
            return;
        }
        self.x += if left && (self.y as i32 % 2 == 0 || !right) { -1.0 } else { 1.0 };
        self.y -= 1.0;
        self.vx *= 0.8;
    }
}

/// Milliseconds for `steps` steps.
fn measure(b: &Bench, mut sand: Sand, steps: usize, want: u64) -> f64 {
    let start = Instant::now();
    b.pool.install(|| {
        for _ in 0..steps {
            sand.step_parallel();
        }
    });
    let value = each(start, 1) / 1e6;
    check("grains", sand.checksum(), want);
    value
}

fn serial(mut sand: Sand, steps: usize) -> u64 {
    for _ in 0..steps {
        sand.step_serial();
    }
    sand.checksum()
}

fn full(capacity: usize, is_heavy: bool) -> Sand {
    let mut sand = Sand::new(capacity, is_heavy);
    sand.spawn(capacity);
    sand
}

fn main() {
    let mut args: Vec<String> = std::env::args().collect();
    let name = option(&mut args, "--as").unwrap_or_else(|| die("--as is needed".into()));
    let (make, steps): (fn() -> Sand, usize) = match name.as_str() {
        "sand_100k" => (|| Sand::new(100_000, false), 120),
        "sand_1m" => (|| full(1_000_000, false), 10),
        "sand_heavy" => (|| Sand::new(100_000, true), 10),
        "sand_heavy_1m" => (|| full(1_000_000, true), 1),
        _ => die(format!("{name}: no such question")),
    };
    let is_long = name == "sand_heavy_1m";
    let mut want = None;
    bench::main(&name, vec![Metric("", "ms")], args, |b| {
        if is_long && b.quick {
            return vec![f64::NAN];
        }
        let want = *want.get_or_insert_with(|| serial(make(), steps));
        vec![measure(b, make(), steps, want)]
    });
}
