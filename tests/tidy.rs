//! Rules about the source tree itself: who may import whom, what stays pure, how long things are.
