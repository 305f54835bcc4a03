// What every forward and backward is handed: the device, its two streams, the layout, and where in training
// we are.
#pragma once

#include "runtime/backend.h"
#include "runtime/step_timeline.h"

namespace moesaic {

class GradientSync;
class Mesh;
class RoutingObserver;

enum class Phase : std::uint8_t {
    train,       ///< keep what the backward needs
    recompute,   ///< forward again inside a backward: same plan, statistics not counted a second time
    evaluate,    ///< keep nothing, count nothing; nothing is drawn at random
    count_only,  ///< a look ahead at what train will choose, routers' noise included; keep nothing
};

struct StepContext {
    Backend& backend;
    Stream& compute;   ///< every operation of the device
    Stream& exchange;  ///< every collective, so that their order is one on every rank
    Mesh& mesh;
    Phase phase = Phase::train;
    i64 step = 0;                         ///< counts from 1
    RoutingObserver* observer = nullptr;  ///< of the routers' decisions; null: nobody watches
    StepTimeline* timeline = nullptr;     ///< where time goes; null: nobody asks
    GradientSync* gradients = nullptr;    ///< what waits for the wire to be idle; null: nothing
};

}  // namespace moesaic
