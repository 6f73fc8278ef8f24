import { render } from "preact";
import { run, watchLetters } from "./live";
import { settle } from "./route";
import { store } from "./store";
import "./style/base.css";
import "./style/overview.css";
import "./style/pages.css";
import { begin } from "./theme";
import { App } from "./view/app";

settle();
begin();
render(<App />, document.getElementById("page")!);
watchLetters();
setInterval(() => store.second(), 1000);
void run();
