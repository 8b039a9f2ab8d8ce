// What the oneTBB programs share: the frame of the peers, and the number of threads.
//
// The thread that measures is one of those that compute, as oneTBB means it to be; so `workers` is all of them.
#pragma once
#include <tbb/tbb.h>

#include <vector>

#include "../../job_work.h"
#include "../frame.h"

using Control = tbb::global_control;

// For as long as it lives there are that many threads.
class Threads {
  Control control;

public:
  explicit Threads(const peer *p) : control(Control::max_allowed_parallelism, size_t(p->workers)) {}
};

// Measures `run` for a question; returns main's status.
inline int measure(int argc, char **argv, const char *question, std::vector<peer_metric> metrics,
                   void (*run)(const peer *, double *)) {
  peer p{};
  p.impl = "tbb";
  p.question = question;
  p.run = run;
  for (size_t i = 0; i < metrics.size(); i++) p.metrics[i] = metrics[i];
  return peer_main(argc, argv, &p);
}
