#include "parallel/vital_signs.h"

namespace shoestring {

void VitalSigns::enter(std::string phase, const WaitLimits& limits) {
  const std::lock_guard lock(mutex_);
  phase_ = std::move(phase);
  limits_ = limits;
  action_.reset();
  ++progress_;
}

void VitalSigns::act(const Action& action) {
  obey();
  const std::lock_guard lock(mutex_);
  action_ = action;
  ++progress_;
}

void VitalSigns::wait(int peer, std::string what) {
  const std::lock_guard lock(mutex_);
  waits_for_ = peer;
  waits_what_ = std::move(what);
  waits_ = true;
}

void VitalSigns::go_on() {
  ++progress_;
  if (!waits_) return;
  const std::lock_guard lock(mutex_);
  waits_for_ = -1;
  waits_ = false;
}

void VitalSigns::obey() {
  if (!condemned_ || heard_) return;
  const std::lock_guard lock(mutex_);
  heard_ = true;
  throw Error(verdict_->code, verdict_->text);
}

std::optional<Verdict> VitalSigns::verdict() const {
  const std::lock_guard lock(mutex_);
  return verdict_;
}

VitalSigns::Reading VitalSigns::read() const {
  const std::lock_guard lock(mutex_);
  Reading reading{.progress = progress_, .limits = limits_, .waits_for = waits_ ? waits_for_ : -1, .doing = phase_};
  if (action_) reading.doing += ", " + to_string(*action_);
  if (waits_) reading.doing += ", " + waits_what_;
  return reading;
}

void VitalSigns::condemn(const Verdict& verdict) {
  const std::lock_guard lock(mutex_);
  if (condemned_) return;  // the first one stands
  verdict_ = verdict;
  condemned_ = true;
}

}  // namespace shoestring
