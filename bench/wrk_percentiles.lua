-- Has wrk print, when it is done, what it counted and how long answers took, in microseconds, as one line of JSON.
-- wrk runs no Lua while it measures: only `done` is defined.
function done(summary, latency, requests)
  local points, rest = {}, 1
  while rest * summary.requests >= 1 do
    table.insert(points, string.format("[%.8g,%d]", 100 - 100 * rest, latency:percentile(100 - 100 * rest)))
    rest = rest * 0.79432823472428150 -- ten points for each further nine
  end
  table.insert(points, string.format("[100,%d]", latency.max))
  local errors = summary.errors
  io.write(string.format('{"rate":%.1f,"errors":%d,', summary.requests / summary.duration * 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
  for _, percent in ipairs({50, 90, 99, 99.9, 99.99}) do
    io.write(string.format('"p%g":%d,', percent, latency:percentile(percent)))
  end
  io.write('"histogram":[' .. table.concat(points, ",") .. "]}\n")
end
