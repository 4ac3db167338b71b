// A sentence for the viewer in their own language. An unknown reason gets the service's own words.
const GERMAN = {
  full: ({ limit, active }) => limit === 0 ? "Mit diesem Konto kann gerade nichts angesehen werden."
    : limit === 1 ? "Mit diesem Konto läuft schon ein Stream. Beende ihn, um hier zu sehen."
    : `Mit diesem Konto laufen schon ${active} von ${limit} Streams. Beende einen davon, um hier zu sehen.`,
  ended: () => "Dieser Stream ist zu Ende. Starte ihn neu, um weiterzusehen.",
  displaced: () => "Ein anderer Stream dieses Kontos hat diesen abgelöst. Starte ihn neu, um wieder hier zu sehen.",
  operator: () => "Dieser Stream wurde vom Dienst beendet. Frag dort nach, oder starte ihn neu.",
  not_stoppable: () => "Jener Stream lässt sich von hier nicht beenden. Schließ ihn auf seinem Gerät.",
  outage: () => "Gerade lässt sich nicht sagen, wie viele Streams mit diesem Konto laufen. Versuch es gleich noch einmal.",
  no_user: () => "Du bist nicht angemeldet. Melde dich an, um zu sehen.",
  no_session: () => "Dieser Player sagt nicht, welchen Stream er spielt. Nimm die App oder die Seite des Dienstes.",
  malformed: () => "Dieser Player hat etwas Unverständliches gesendet. Lade die Seite neu oder starte die App neu.",
  misconfigured: () => "Der Dienst hat hier einen Fehler. Melde ihn, oder versuch es später.",
  not_live: () => "Dieser Stream läuft nicht. Starte ihn, um zu sehen.",
  internal: () => "Da ist etwas schiefgegangen. Versuch es noch einmal.",
};

export const inWords = (problem, words = GERMAN) => words[problem.reason]?.(problem) ?? problem.detail;
