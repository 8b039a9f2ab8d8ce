# How much of a machine a test takes, which tests wait for `make test-all`, and which are the same in every build.
#
# A test starts threads of its own and minds being disturbed: it has two CPUs for itself (PROCESSORS 2), so that as many
# run at a time as there are pairs of CPUs. What mostly sleeps, or has one thread and no deadline, makes do with one.
# Long: what takes a second or more and runs a program that a quick test runs, too, on another number of workers or in
# another way. `make test` leaves these out, `make test LONG=1` and `make test-all` do not.
# Once: what looks at the sources or at a build of its own. The suites of sanitizers and the like leave these out.

set(coir_light_tests
  "^(bench_runner|check_.*|docs|ex_sleepers|guards|guards_self_test|guide|install_tree|model|t_topology|tidy)$"
  "^(t_carry|t_deadlock|t_fiber|t_io|t_monitor|t_resolve|t_sim|t_wait)(_traced)?(_w.)?$"
  "^GoFiber(Background|Basic|Deadlock|IoClose|IoTimeout|LibTicker|Sleep)Test(_w.)?$"
  "^(defect|sound|fuzz)_"
  "^(ex_csp_nim_.*|CspDeadlockTest_w.|CspLinesTest)$")
set(coir_long_tests
  "^(e_httpd|soak_httpd)_w2$"
  "^(fire_c|fire_cxx)_w[24]$"
  "^stress_(chan|chan_race|chan_windows|core|job|scope|signal|sync|wait)_w[28]$"
  "^(t_carry|t_deadlock|t_io|t_job_fork|t_job_fork_fail|t_job_system|t_monitor_edge|t_scope|t_sort|t_tick)_w[28]$"
  "^t_io_traced_w1$"
  "^(GoFiber|Csp).*Test_w[28]$"
  "^GoFiber(Deadlock|IoClose|IoLatency|IoRace|IoTimeout|LibTicker|Poller|Sleep)Test$")
if(COIR_SANITIZE) # which takes as long as if there were many more workers
  list(APPEND coir_long_tests "_w[28]$" "^(GoFiber|Csp).*Test_w1$")
endif()
set(coir_once_tests "^(bench_runner|check_typed|docs|explore|explore_mutations|guards|guards_self_test|model|planted_texts|tidy)$")

# Every folder with tests calls it when all of them are there.
function(coir_weigh_tests)
  list(JOIN coir_light_tests "|" light)
  list(JOIN coir_long_tests "|" long)
  get_property(tests DIRECTORY PROPERTY TESTS)
  foreach(test IN LISTS tests)
    get_property(own TEST ${test} PROPERTY PROCESSORS SET)
    if(NOT own AND NOT test MATCHES "${light}")
      set_property(TEST ${test} PROPERTY PROCESSORS 2)
    endif()
    if(test MATCHES "${long}")
      set_property(TEST ${test} APPEND PROPERTY LABELS long)
    endif()
    if(test MATCHES "${coir_once_tests}")
      set_property(TEST ${test} APPEND PROPERTY LABELS once)
    endif()
  endforeach()
endfunction()
